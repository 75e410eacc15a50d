# SPDX-License-Identifier: Apache-2.0
"""Whether second chance works for a gateway, in words for its owner, pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from epic.model.base import Condition
from epic.model.instances import ProxyInstance
from epic.model.resources import Node
from epic.model.siblings import SiblingsSpec
from epic.siblings.listing import passes_on
from epic.siblings.waiting import Said, late

SECOND_CHANCE = "SecondChance"
LATE = "SiblingsLate"


def second_chance(
    instances: Sequence[ProxyInstance],
    spec: SiblingsSpec | None,
    nodes: Mapping[str, Node],
    said: Mapping[str, Said],
    time: datetime,
) -> Condition:
    """The gateway's condition of that type; `said` has each node of the list."""
    alive = [instance for instance in instances if instance.lives]
    able = [i for i in alive if i.node in nodes and passes_on(nodes[i.node])]
    listed = spec.staying if spec is not None else ()
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


def _condition(status: Literal["True", "False", "Unknown"], reason: str, message: str = "") -> Condition:
    return Condition(type=SECOND_CHANCE, status=status, reason=reason, message=message)
