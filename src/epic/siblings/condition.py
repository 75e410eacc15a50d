# SPDX-License-Identifier: Apache-2.0
"""Whether second chance works for a gateway, in words for its owner, pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Literal

from epic.model.base import Condition
from epic.model.instances import ProxyInstance
from epic.model.siblings import SiblingsSpec
from epic.siblings.listing import Nodes, passes_on
from epic.siblings.waiting import Said, late

SECOND_CHANCE = "SecondChance"
LATE = "SiblingsLate"


def second_chance(
    instances: Sequence[ProxyInstance],
    spec: SiblingsSpec | None,
    nodes: Nodes,
    said: Mapping[str, Said],
    time: datetime,
) -> Condition:
    """The gateway's condition of that type; `said` has each node of the list."""
    alive = [instance for instance in instances if instance.lives]
    listed = spec.staying if spec is not None else ()
    able = [i for i in alive if _is_able(i.node, nodes, listed)]
    held = sum(bool(i.hold) for i in alive)
    surplus = sum(i.node not in listed for i in able)
    if not alive:
        return _condition("Unknown", "NoInstanceLives")
    if held:
        message = f"{held} of {len(alive)} instances wait until all siblings know of them"
        return _condition("Unknown", "WaitsForSiblings", message)
    if len(able) < len(alive):
        message = f"{len(alive) - len(able)} of {len(alive)} instances are on nodes that pass no packets on"
        return _condition("False", "NotOnAllNodes", f"{message}; the platform's operators can see why")
    if surplus:
        message = f"the list of siblings has no room for {surplus} of {len(alive)} instances"
        return _condition("False", "NoIndexFree", message)
    if spec is not None and (behind := len(late(spec, said, time))):
        message = f"{behind} of {len(alive)} instances are without the newest list of siblings"
        return _condition("False", LATE, f"{message}; the platform's operators can see which")
    return _condition("True", "AllSiblingsKnow")


def _is_able(name: str, nodes: Nodes, listed: Collection[str]) -> bool:
    """Whether the node passes packets on; one that cannot be read does if it is in the list."""
    node = nodes.get(name)
    return passes_on(node) if node is not None else name in nodes and name in listed


def _condition(status: Literal["True", "False", "Unknown"], reason: str, message: str = "") -> Condition:
    return Condition(type=SECOND_CHANCE, status=status, reason=reason, message=message)
