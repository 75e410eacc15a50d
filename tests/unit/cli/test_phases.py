# SPDX-License-Identifier: Apache-2.0
"""How nodes are shown: phases, instances and the conditions that are not at rest."""

from __future__ import annotations

import pytest

from epic.cli.printing.listing import cells, kind_of


def line(**status: object) -> dict[str, str]:
    row = {"metadata": {"name": "epic1"}, "spec": {"address": "192.0.2.1", "capacity": 250}, "status": status}
    kind = kind_of("nodes")
    return dict(zip((title for title, _ in kind.columns), cells(kind, [row])[0], strict=True))


def test_a_node_that_serves() -> None:
    shown = line(phase="Ready", instances={"Serving": 3}, conditions=[{"type": "Ready", "status": "True"}])
    assert (shown["PHASE"], shown["INSTANCES"], shown["CONDITIONS"]) == ("Ready", "3 Serving", "-")


def test_a_node_that_nobody_has_heard_of_yet() -> None:
    shown = line()
    assert (shown["PHASE"], shown["INSTANCES"], shown["CONDITIONS"]) == ("Joining", "no instances", "-")


def test_how_many_sessions_of_a_node_are_established() -> None:
    assert line(bgp={"configured": 2, "established": 1})["BGP"] == "1/2"
    assert line(bgp={"configured": 2})["BGP"] == "0/2"
    assert line()["BGP"] == "-"


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"Ready": "False", "Drained": "True"}, "not Ready, Drained"),
        ({"Ready": "Unknown", "Drained": "False"}, "perhaps Ready"),
        ({"Ready": "True", "DropHeld": "True"}, "DropHeld"),
        ({"Ready": "True", "SecondChance": "True"}, "-"),
        ({"Ready": "True", "SecondChance": "False"}, "not SecondChance"),
        ({"Ready": "True", "BGPEstablished": "True"}, "-"),
        ({"Ready": "True", "BGPEstablished": "Unknown"}, "-"),
        ({"Ready": "True", "BGPEstablished": "False"}, "not BGPEstablished"),
    ],
)
def test_conditions_that_are_not_at_rest(conditions: dict[str, str], expected: str) -> None:
    found = [{"type": kind, "status": status} for kind, status in conditions.items()]
    assert line(phase="Draining", conditions=found)["CONDITIONS"] == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([{"type": "SecondChance", "status": "True", "reason": "AllSiblingsKnow"}], "yes"),
        ([{"type": "SecondChance", "status": "Unknown", "reason": "WaitsForSiblings"}], "WaitsForSiblings"),
        ([], "-"),
    ],
)
def test_whether_a_gateway_has_second_chance(found: list[dict[str, str]], expected: str) -> None:
    kind = kind_of("gateways")
    row = {"metadata": {"name": "u"}, "spec": {}, "status": {"conditions": found}}
    shown = dict(zip((title for title, _ in kind.columns), cells(kind, [row])[0], strict=True))
    assert shown["SECOND CHANCE"] == expected


def test_phases_are_in_the_order_of_a_life() -> None:
    assert line(instances={"Removed": 1, "Serving": 2, "Planned": 0})["INSTANCES"] == "2 Serving, 1 Removed"
