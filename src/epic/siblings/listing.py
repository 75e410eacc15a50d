# SPDX-License-Identifier: Apache-2.0
"""The list of a gateway's siblings after a change, pure: order, indexes and the keys of those who left."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr

from epic.model.instances import ProxyInstance
from epic.model.resources import Node
from epic.model.siblings import (
    MOST_SIBLINGS,
    FormerSibling,
    Sibling,
    SiblingsSpec,
    SiblingsVersion,
)
from epic.model.values.addresses import Address
from epic.model.values.keys import EpochKey

_VERSIONS_KEPT = 16

Nodes = Mapping[str, Node | None]
"""Nodes that exist, by name; None: it cannot be read."""


@dataclass(frozen=True)
class Living:
    """An instance that is to be in the list: its node, and the node's address in the underlay.

    One that is `leaving` has come to its end: it is in the list only if it was, and until nobody passes
    packets on to it any more.
    """

    node: str
    address: Address
    draining: bool = False
    leaving: bool = False


def living(instances: Iterable[ProxyInstance], nodes: Nodes, listed: Iterable[Sibling] = ()) -> list[Living]:
    """The instances that live on nodes that pass packets on.

    One on a node that cannot be read is among them if it is `listed`, as it is there.
    """
    addresses = {sibling.node: sibling.address for sibling in listed if sibling.node in nodes}
    addresses = {name: address for name, address in addresses.items() if nodes[name] is None}
    addresses |= {n.name: n.spec.address for n in nodes.values() if n is not None and passes_on(n)}
    found: list[Living] = []
    for instance in instances:
        address = addresses.get(instance.node)
        if address is None or instance.phase == "Removed":
            continue
        leaving = not instance.lives
        found.append(Living(instance.node, address, instance.draining and not leaving, leaving))
    return found


def stands(node: Node | None) -> bool:
    """Whether a node that exists is not lost; of one that cannot be read that is not known."""
    return node is None or not node.status.lost


def passes_on(node: Node) -> bool:
    """Whether the node takes part in second chance."""
    return node.status.second_chance and not node.status.lost


def begin(addresses: Sequence[Address], time: datetime, secret: str) -> SiblingsSpec:
    """A list with nobody in it, of a gateway with these one or two public addresses.

    `secret` is its first key, 32 hexadecimal digits.
    """
    key = EpochKey(epoch=1, secret=SecretStr(secret))
    return SiblingsSpec(
        public_address=addresses[0],
        alt_address=next(iter(addresses[1:]), None),
        keys=(key,),
        signing_epoch=1,
        signing_since=time,
        generation=0,
        changed=time,
    )


def relist(
    spec: SiblingsSpec, here: Sequence[Living], standing: Collection[str], time: datetime, secret: str
) -> SiblingsSpec:
    """The list of exactly those who live, and of those who leave it; the same object when nothing changes.

    One leaves in two steps: first it is in the list as one that leaves, for others may have an older list for
    a while, and then it is not (`dismiss`). Who is not `here` any more is out at once, as are all when nobody
    stays. `standing` are the nodes that exist and are not lost: what others knew of keys is worth nothing
    from now on, unless they were removed as planned. When one has left, a new key (`secret`) is on its way at
    once. Newcomers for which no index is free are left out.
    """
    generation = spec.generation + 1
    stays = any(not found.leaving for found in here)
    lives = {found.node: found for found in here if stays}
    kept = [
        _kept(sibling, lives[sibling.node], generation, time)
        for sibling in spec.siblings
        if sibling.node in lives
    ]
    left = [_former(sibling, spec, generation) for sibling in spec.siblings if sibling.node not in lives]
    former = [*spec.former, *left]
    for newcomer in here:
        index = _free_index(newcomer.node, kept, former)
        if newcomer.leaving or newcomer.node in spec.nodes or index is None:
            continue
        former = [f for f in former if f.node != newcomer.node]
        kept.append(
            Sibling(
                node=newcomer.node,
                index=index,
                address=newcomer.address,
                draining=newcomer.draining,
                joined=generation,
                since=time,
            )
        )
    after = spec.model_copy(update={"siblings": tuple(kept), "former": tuple(former)})
    after = _rekeyed(after, bool(left), standing, time, secret)
    return spec if after == spec else advanced(after, time)


def dismiss(spec: SiblingsSpec, nodes: Collection[str], time: datetime, secret: str) -> SiblingsSpec:
    """The list without these, who leave it: nobody passes anything on to them any more.

    What they know of keys goes with the next rotation, whose key (`secret`) is on its way at once.
    """
    generation = spec.generation + 1
    left = [_former(sibling, spec, generation) for sibling in spec.siblings if sibling.node in nodes]
    kept = tuple(sibling for sibling in spec.siblings if sibling.node not in nodes)
    after = spec.model_copy(update={"siblings": kept, "former": (*spec.former, *left)})
    return advanced(with_secret(after, secret) if len(after.keys) == 1 else after, time)


def advanced(spec: SiblingsSpec, time: datetime) -> SiblingsSpec:
    """The list as its next generation."""
    return spec.model_copy(update={"generation": spec.generation + 1, "changed": time})


def noted(spec: SiblingsSpec, version: str) -> SiblingsSpec:
    """The list with the version under which nodes get it; of equal lists the newest generation counts."""
    if spec.versions and spec.versions[-1].generation == spec.generation:
        return spec
    others = [v for v in spec.versions if v.version != version]
    newest = SiblingsVersion(generation=spec.generation, version=version)
    return spec.model_copy(update={"versions": (*others[-_VERSIONS_KEPT + 1 :], newest)})


def with_secret(spec: SiblingsSpec, secret: str) -> SiblingsSpec:
    """The list with one more key, which does not sign yet."""
    key = EpochKey(epoch=spec.newest_epoch + 1, secret=SecretStr(secret))
    return spec.model_copy(update={"keys": (*spec.keys, key)})


def in_order(siblings: Iterable[Sibling]) -> list[Sibling]:
    """As packets without a known owner try them: those that drain, then those that are there longest.

    Those that leave are not tried, and stand last.
    """
    return sorted(siblings, key=lambda sibling: (bool(sibling.left), not sibling.draining))


def _kept(sibling: Sibling, found: Living, generation: int, time: datetime) -> Sibling:
    update: dict[str, object] = {"address": found.address, "draining": found.draining}
    if found.leaving and not sibling.left:
        update |= {"left": generation, "since": time}
    elif sibling.left and not found.leaving:
        # Others know it as one that leaves: it is as new to them as any newcomer.
        update |= {"left": 0, "joined": generation, "since": time}
    return sibling.model_copy(update=update)


def _former(sibling: Sibling, spec: SiblingsSpec, generation: int) -> FormerSibling:
    return FormerSibling(node=sibling.node, index=sibling.index, left=generation, epoch=spec.newest_epoch)


def _free_index(node: str, kept: Iterable[Sibling], former: Collection[FormerSibling]) -> int | None:
    own = next((f.index for f in former if f.node == node), None)
    if own is not None:
        return own
    taken = {sibling.index for sibling in kept} | {f.index for f in former}
    return next((index for index in range(MOST_SIBLINGS) if index not in taken), None)


def _rekeyed(
    spec: SiblingsSpec, one_left: bool, standing: Collection[str], time: datetime, secret: str
) -> SiblingsSpec:
    strange = [f for f in spec.former if f.node not in standing and not f.dismissed]
    exposed = max((f.epoch for f in strange), default=0)
    if one_left and not spec.siblings:
        # Who comes next begins with nothing of the old. Nodes that have the old list yet pass nothing on to
        # those with the new one, nor these to them: they have no key in common.
        spec, exposed = spec.model_copy(update={"former": ()}), spec.newest_epoch
    if any(key.epoch <= exposed for key in spec.keys):
        fresh = spec if spec.newest_epoch > exposed else with_secret(spec, secret)
        keys = tuple(key for key in fresh.keys if key.epoch > exposed)
        signing = {"signing_epoch": fresh.newest_epoch, "signing_since": time}
        return spec.model_copy(update={"keys": keys, **signing})
    return with_secret(spec, secret) if one_left and len(spec.keys) == 1 else spec
