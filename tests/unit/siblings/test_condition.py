# SPDX-License-Identifier: Apache-2.0
"""What a gateway says of its second chance, to its owner: reasons and numbers, no node's name."""

from __future__ import annotations

from datetime import timedelta

import pytest
from test_listing import TIME, alive, instance, lists, node

from epic.model.instances import ProxyInstance
from epic.siblings.condition import second_chance
from epic.siblings.listing import noted
from epic.siblings.waiting import HELD, Said

BOTH = [instance("e1", "Serving"), instance("e2", "Serving")]
NODES = {name: node(name) for name in ("e1", "e2")}
WITHOUT = node("e2", **{"second-chance": False, "second-chance-refusal": "the kernel of e2 is too old"})


def said(instances: list[ProxyInstance], nodes: dict[str, object], **versions: str) -> tuple[str, str, str]:
    spec = noted(lists(tuple(alive(n) for n in versions)), "v1")
    heard = {name: Said(version, 1.0) for name, version in versions.items()}
    found = second_chance(instances, spec, nodes, heard, TIME + timedelta(minutes=1))  # type: ignore[arg-type]
    assert not {"e1", "e2"} & set(found.message.replace(":", " ").split())
    return found.status, found.reason, found.message


def test_all_know() -> None:
    assert said(BOTH, {**NODES}, e1="v1", e2="v1") == ("True", "AllSiblingsKnow", "")


def test_one_is_late() -> None:
    status, reason, message = said(BOTH, {**NODES}, e1="v1", e2="v0")
    assert (status, reason, message.partition(" are")[0]) == ("False", "SiblingsLate", "1 of 2 instances")


def test_one_is_held() -> None:
    held = [BOTH[0], BOTH[1].model_copy(update={"hold": HELD})]
    assert said(held, {**NODES}, e1="v1", e2="v0")[:2] == ("Unknown", "WaitsForSiblings")


def test_one_is_on_a_node_that_passes_nothing_on() -> None:
    status, reason, message = said(BOTH, {**NODES, "e2": WITHOUT}, e1="v1")
    assert (status, reason) == ("False", "NotOnAllNodes")
    assert "kernel" not in message


def test_one_has_no_index() -> None:
    assert said(BOTH, {**NODES}, e1="v1")[:2] == ("False", "NoIndexFree")


@pytest.mark.parametrize("phase", ["Withdrawn", "Removed"])
def test_none_lives(phase: str) -> None:
    assert said([instance("e1", phase)], {**NODES}, e1="v1")[:2] == ("Unknown", "NoInstanceLives")
