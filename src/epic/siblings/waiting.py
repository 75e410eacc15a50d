# SPDX-License-Identifier: Apache-2.0
"""Who waits for whom, pure: for the lists that siblings have, as their nodes said last."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from epic.model.instances import ProxyInstance
from epic.model.siblings import FormerSibling, Sibling, SiblingsSpec

HOLD_MAX = timedelta(seconds=10)
"""Nobody is kept from serving for longer."""
SILENT_MAX = timedelta(minutes=2)
"""Nobody who leaves is kept for longer by nodes whose programs answer nobody: they pass nothing on."""
HELD = "WaitsForSiblings: its siblings do not all know it yet, or it does not know them"

AWAY_SECONDS = 12.0
"""Nodes report every five seconds: nobody waits for one that did not for so long."""


@dataclass(frozen=True)
class Said:
    """What a node said last of a gateway's list.

    `version`: of the list that its programs have, empty: they have none, None: it said nothing. `age`:
    seconds since then, or since one began to listen. `held`: seconds since it first said that version.
    """

    version: str | None
    age: float
    held: float = 0.0


def generation_of(spec: SiblingsSpec, said: Said) -> int:
    """The generation of the list that a node has, at least."""
    return next((v.generation for v in spec.versions if v.version == said.version), -1)


def waits_for(spec: SiblingsSpec, node: str, said: Mapping[str, Said]) -> tuple[str, ...]:
    """The nodes, itself among them, for which a newcomer waits: they do not have a list with it yet."""
    joined = next((s.joined for s in spec.siblings if s.node == node), 0)
    return tuple(
        name
        for name in spec.staying
        if said[name].age <= AWAY_SECONDS and generation_of(spec, said[name]) < joined
    )


def is_held(spec: SiblingsSpec, instance: ProxyInstance, said: Mapping[str, Said], time: datetime) -> bool:
    """Whether an instance that is held is to be held on."""
    sibling = next((s for s in spec.siblings if s.node == instance.node), None)
    if sibling is None or len(spec.staying) == 1 or instance.announced or not instance.hold:
        return False
    return time - sibling.since < HOLD_MAX and bool(waits_for(spec, instance.node, said))


def release(spec: SiblingsSpec, said: Mapping[str, Said]) -> SiblingsSpec:
    """The list without those former siblings of whom nothing is left: no index, and no key that counts."""
    oldest = min(key.epoch for key in spec.keys)
    kept = tuple(f for f in spec.former if f.epoch >= oldest or not _is_forgotten(spec, f, said))
    return spec if kept == spec.former else spec.model_copy(update={"former": kept})


def forgotten(spec: SiblingsSpec, said: Mapping[str, Said], silent: Collection[str]) -> tuple[str, ...]:
    """The nodes that leave and that nobody passes anything on to any more.

    That is so when each other node has a list in which they leave, or none; also those that leave themselves
    pass on what they get. One whose agent is stopped goes on with the list that it has for as long as its
    programs run. So it is waited for however long that is, unless it is `silent`: its programs have not
    answered any of the others for a while.
    """
    return tuple(sibling.node for sibling in spec.leaving if not _askers(spec, sibling, said, silent))


def awaited(
    spec: SiblingsSpec, said: Mapping[str, Said], silent: Collection[str], time: datetime
) -> dict[str, tuple[str, ...]]:
    """Of each node that leaves, those that it has been waiting for longer than they take in most cases.

    They may pass packets on to it, for they have not said that their list has it as one that leaves.
    """
    return {
        sibling.node: _askers(spec, sibling, said, silent)
        for sibling in spec.leaving
        if time - sibling.since >= HOLD_MAX
    }


def late(spec: SiblingsSpec, said: Mapping[str, Said], time: datetime) -> tuple[str, ...]:
    """The nodes that have not taken the newest list although they had time to."""
    if time - spec.changed < HOLD_MAX:
        return ()
    return tuple(node for node in spec.staying if _is_late(spec, said[node]))


def _is_late(spec: SiblingsSpec, said: Said) -> bool:
    # Of whom nothing was heard yet there may be news in a moment.
    unheard = said.version is None and said.age < HOLD_MAX.total_seconds()
    return said.version != spec.version and not unheard


def _askers(
    spec: SiblingsSpec, sibling: Sibling, said: Mapping[str, Said], silent: Collection[str]
) -> tuple[str, ...]:
    """The other nodes that may pass packets on to a sibling that leaves."""
    return tuple(
        node
        for node in spec.nodes
        if node != sibling.node and node not in silent and not _has(spec, said[node], sibling.left)
    )


def _is_forgotten(spec: SiblingsSpec, former: FormerSibling, said: Mapping[str, Said]) -> bool:
    return all(_has(spec, said[node], former.left) for node in spec.nodes)


def _has(spec: SiblingsSpec, said: Said, generation: int) -> bool:
    """Whether a node has a list of that generation or a newer one, or none at all."""
    return said.version == "" or generation_of(spec, said) >= generation
