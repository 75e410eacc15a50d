# SPDX-License-Identifier: Apache-2.0
"""The list of siblings: who is in it, in which order, with which index, and which keys count."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

from epic.model.instances import ProxyInstance
from epic.model.resources import Node
from epic.model.siblings import MOST_SIBLINGS, SiblingsSpec
from epic.model.values.naming import GatewayId
from epic.siblings.listing import Living, begin, dismiss, living, noted, relist
from epic.siblings.message import message

TIME = datetime(2026, 1, 1, tzinfo=UTC)
PUBLIC = IPv4Address("203.0.113.1")
NODES = [f"e{number}" for number in range(1, MOST_SIBLINGS + 3)]
ALL = frozenset(NODES)


def alive(name: str, *, draining: bool = False) -> Living:
    return Living(name, IPv4Address(f"192.0.2.{name[1:]}"), draining)


def leaving(name: str) -> Living:
    return Living(name, IPv4Address(f"192.0.2.{name[1:]}"), leaving=True)


def lists(
    *states: tuple[Living, ...], spec: SiblingsSpec | None = None, standing: frozenset[str] = ALL
) -> SiblingsSpec:
    """The list after each of these in turn."""
    spec = spec or begin((PUBLIC,), TIME, "00" * 16)
    for number, state in enumerate(states, spec.generation + 1):
        spec = relist(spec, state, standing, TIME + timedelta(seconds=number), f"{number:02x}" * 16)
    return spec


def indexes(spec: SiblingsSpec) -> dict[str, int]:
    return {sibling.node: sibling.index for sibling in spec.siblings}


def order(spec: SiblingsSpec) -> list[str]:
    return [sibling.node for sibling in message(GatewayId("a", "g"), spec).siblings]


def epochs(spec: SiblingsSpec) -> list[int]:
    return [key.epoch for key in spec.keys]


def node(name: str, **status: object) -> Node:
    return Node.model_validate(
        {
            "metadata": {"name": name},
            "spec": {"address": "192.0.2.1"},
            "status": {"second-chance": True, **status},
        }
    )


def instance(name: str, phase: str) -> ProxyInstance:
    return ProxyInstance.model_validate({"node": name, "inside-address": "100.64.0.1", "phase": phase})


def test_instances_are_in_the_list_from_the_beginning_until_they_are_drained() -> None:
    phases = ["Planned", "Prepared", "Serving", "Draining", "Withdrawn", "Removed"]
    instances = [instance(f"e{n}", phase) for n, phase in enumerate(phases)]
    found = living(instances, {i.node: node(i.node) for i in instances})
    assert [(f.node, f.draining, f.leaving) for f in found] == [
        ("e0", False, False),
        ("e1", False, False),
        ("e2", False, False),
        ("e3", True, False),
        ("e4", False, True),
    ]


def test_nodes_that_are_lost_or_pass_nothing_on_are_in_no_list() -> None:
    nodes = {"e1": node("e1", lost=True), "e2": node("e2", **{"second-chance": False})}
    assert living([instance(name, "Serving") for name in ("e1", "e2", "e3")], nodes) == []


def test_those_that_drain_are_tried_first_and_newcomers_last() -> None:
    spec = lists(
        (alive("e2"),),
        (alive("e1"), alive("e2")),
        (alive("e1"), alive("e2", draining=True), alive("e3", draining=True)),
    )
    assert order(spec) == ["e2", "e3", "e1"]
    back = lists((alive("e1"), alive("e2"), alive("e3")), spec=spec)
    assert order(back) == ["e2", "e1", "e3"]


def test_nothing_changes_without_a_change() -> None:
    spec = lists((alive("e1"), alive("e2")))
    assert lists((alive("e2"), alive("e1")), spec=spec) is spec


def test_an_index_stays_and_is_not_given_to_another_before_it_is_released() -> None:
    spec = lists((alive("e1"), alive("e2")), (alive("e2"),), (alive("e2"), alive("e3")))
    assert indexes(spec) == {"e2": 1, "e3": 2}
    assert [(f.node, f.index, f.left) for f in spec.former] == [("e1", 0, 2)]


def test_who_leaves_is_in_the_list_as_one_that_leaves_and_is_tried_no_more() -> None:
    both = lists((alive("e1"), alive("e2")))
    spec = lists((leaving("e1"), alive("e2")), spec=both)
    assert (spec.nodes, spec.staying, indexes(spec)) == (("e1", "e2"), ("e2",), indexes(both))
    sent = message(GatewayId("a", "g"), spec).siblings
    assert [(s.node, s.leaving, s.draining) for s in sent] == [("e2", False, False), ("e1", True, False)]
    assert (spec.former, epochs(spec)) == ((), [1])
    assert lists((leaving("e1"), alive("e2")), spec=spec) is spec


def test_when_it_is_dismissed_its_index_is_kept_and_a_new_key_is_on_its_way() -> None:
    spec = lists((alive("e1"), alive("e2")), (leaving("e1"), alive("e2")))
    gone = dismiss(spec, {"e1"}, TIME, "77" * 16)
    assert (gone.nodes, gone.generation) == (("e2",), spec.generation + 1)
    assert [(f.node, f.index, f.left, f.epoch) for f in gone.former] == [("e1", 0, gone.generation, 1)]
    assert (epochs(gone), gone.signing_epoch) == ([1, 2], 1)
    assert lists((leaving("e1"), alive("e2")), spec=gone) is gone, "it comes into no list again"


def test_who_comes_back_before_it_is_dismissed_is_as_new_as_any_newcomer() -> None:
    spec = lists((alive("e1"), alive("e2")), (leaving("e1"), alive("e2")), (alive("e1"), alive("e2")))
    assert (spec.staying, indexes(spec)) == (("e1", "e2"), {"e1": 0, "e2": 1})
    assert [s.joined for s in spec.siblings] == [spec.generation, 1]
    assert [s.joined for s in message(GatewayId("a", "g"), spec).siblings] == [spec.generation, 1]


def test_who_was_dismissed_and_comes_back_with_its_old_index_has_joined_anew() -> None:
    before = lists((alive("e1"), alive("e2")))
    parted = dismiss(lists((leaving("e1"), alive("e2")), spec=before), {"e1"}, TIME, "77" * 16)
    spec = lists((alive("e1"), alive("e2")), spec=parted)
    assert (indexes(spec), order(spec)) == ({"e2": 1, "e1": 0}, ["e2", "e1"])
    joined = {s.node: s.joined for s in message(GatewayId("a", "g"), spec).siblings}
    assert joined == {"e2": before.siblings[1].joined, "e1": spec.generation}


def test_nobody_leaves_by_steps_whom_nobody_passes_anything_on_to() -> None:
    both = lists((alive("e1"), alive("e2")))
    assert lists((leaving("e1"), leaving("e2")), spec=both).nodes == ()
    lost = lists((leaving("e1"), alive("e2")), spec=both)
    lost = lists((alive("e2"),), spec=lost, standing=ALL - {"e1"})
    assert (lost.nodes, epochs(lost)) == (("e2",), [2])


def test_who_comes_back_gets_its_own_index() -> None:
    spec = lists((alive("e1"), alive("e2")), (alive("e2"),), (alive("e2"), alive("e1")))
    assert indexes(spec) == {"e2": 1, "e1": 0}
    assert spec.former == ()


def test_for_whom_no_index_is_free_is_left_out_till_there_is_one() -> None:
    everybody = tuple(map(alive, NODES))
    spec = lists(everybody)
    assert spec.nodes == tuple(NODES[:MOST_SIBLINGS])
    assert lists(everybody, spec=spec) is spec
    free = spec.model_copy(update={"siblings": spec.siblings[1:]})
    assert NODES[MOST_SIBLINGS] in lists(everybody[1:], spec=free).nodes


def test_a_new_key_is_on_its_way_as_soon_as_one_has_left_and_does_not_sign_yet() -> None:
    spec = lists((alive("e1"), alive("e2")), (alive("e2"),))
    assert (epochs(spec), spec.signing_epoch) == ([1, 2], 1)
    assert spec.former[0].epoch == 1


def test_what_a_lost_node_knows_counts_no_more_at_once() -> None:
    both = lists((alive("e1"), alive("e2")))
    lost = lists((alive("e2"),), spec=both, standing=ALL - {"e1"})
    assert (epochs(lost), lost.signing_epoch) == ([2], 2)
    assert lost.keys[0].secret != both.keys[0].secret


def test_of_a_node_that_left_before_it_was_removed_only_the_keys_it_knew_go() -> None:
    left = lists((alive("e1"), alive("e2")), (alive("e2"),))
    gone = lists((alive("e2"),), spec=left, standing=ALL - {"e1"})
    assert (epochs(gone), gone.signing_epoch, gone.generation) == ([2], 2, left.generation + 1)
    assert lists((alive("e2"),), spec=gone, standing=ALL - {"e1"}) is gone


def test_what_a_node_that_was_removed_as_planned_knows_goes_with_the_next_rotation() -> None:
    left = lists((alive("e1"), alive("e2")), (alive("e2"),))
    former = tuple(f.model_copy(update={"dismissed": True}) for f in left.former)
    planned = left.model_copy(update={"former": former})
    assert lists((alive("e2"),), spec=planned, standing=ALL - {"e1"}) is planned
    assert (epochs(planned), planned.signing_epoch) == ([1, 2], 1)


def test_an_empty_list_keeps_nothing_of_those_who_were_in_it() -> None:
    spec = lists((alive("e1"), alive("e2")), ())
    assert (spec.siblings, spec.former, epochs(spec)) == ((), (), [2])
    assert indexes(lists((alive("e3"),), spec=spec)) == {"e3": 0}


def test_of_equal_lists_the_newest_generation_counts() -> None:
    spec = lists((alive("e1"),))
    first = noted(spec, "v1")
    later = noted(first.model_copy(update={"generation": 2}), "v2")
    again = noted(later.model_copy(update={"generation": 3}), "v1")
    assert [(v.generation, v.version) for v in again.versions] == [(2, "v2"), (3, "v1")]
    assert noted(again, "v9") is again


def test_only_the_newest_versions_are_kept() -> None:
    spec = lists((alive("e1"),))
    for generation in range(1, 100):
        spec = noted(spec.model_copy(update={"generation": generation}), f"v{generation}")
    assert (len(spec.versions), spec.version) == (16, "v99")
