# SPDX-License-Identifier: Apache-2.0
"""The steps of instances' lives, each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epic.lifecycle.goals import Host, Wanted
from epic.lifecycle.sequencer import Step, advance
from epic.model.instances import ProxyInstance
from epic.placement import Candidate

TIME = datetime(2026, 1, 1, tzinfo=UTC)
EARLIER = datetime(2025, 1, 1, tzinfo=UTC)
UP = {"phase": "Serving", "unit": "current", "ready": True, "announced": True, "envoy_version": "1"}
PARKED = {**UP, "phase": "Withdrawn", "goal": "park", "announced": False, "drained": True}


def instance(node: str, **values: Any) -> ProxyInstance:
    number = int(node[1:])
    return ProxyInstance(node=node, inside_address=IPv4Address(number), since=EARLIER, **values)


def host(name: str, *, schedulable: bool = True, unheard: bool = False, **values: Any) -> Host:
    return Host(Candidate(name, 10, 0, schedulable, unheard), **values)


def step(instances: Sequence[ProxyInstance], *hosts: Host, replicas: int = 2, **wanted: Any) -> Step:
    names = {h.candidate.name: h for h in hosts}
    names = {i.node: host(i.node) for i in instances} | names
    asked = Wanted(**{"replicas": replicas, "envoy_version": "1", "drain_seconds": 30, **wanted})
    return advance("a.g", list(instances), asked, names, TIME)


def phases(found: Step) -> dict[str, str]:
    return {i.node: i.phase for i in found.instances}


@pytest.mark.parametrize(
    ("before", "phase"),
    [
        ({"phase": "Planned"}, "Planned"),
        ({"phase": "Planned", "unit": "current"}, "Prepared"),
        ({**UP, "phase": "Prepared"}, "Serving"),
        ({**UP, "announced": False}, "Prepared"),
    ],
)
def test_an_instance_serves_when_a_run_made_it_and_its_node_announces_it(
    before: dict[str, Any], phase: str
) -> None:
    found = step([instance("e1", **before)], replicas=1)
    assert phases(found) == {"e1": phase}
    assert found.instances[0].since == (EARLIER if phase == before["phase"] else TIME)


def test_an_instance_that_its_siblings_do_not_know_says_that_it_waits_for_them() -> None:
    held = {**UP, "phase": "Prepared", "announced": False, "hold": "WaitsForSiblings: ..."}
    assert [i.reason for i in step([instance("e1", **held)], replicas=1).instances] == [held["hold"]]


def test_an_instance_that_its_node_cannot_set_up_does_not_say_that_it_waits_for_envoy() -> None:
    broken = {**UP, "phase": "Prepared", "announced": False, "error": "NotProgrammed: no room on node e1"}
    (reason,) = [i.reason for i in step([instance("e1", **broken)], replicas=1).instances]
    assert reason == "a node cannot set up all of its tunnels; the platform's operators can see why"


def test_a_deleted_gateways_instances_drain_all_at_once_without_waiting() -> None:
    found = step([instance("e1", **UP), instance("e2", **UP)], deleting=True)
    assert phases(found) == {"e1": "Draining", "e2": "Draining"}
    assert [i.drain_seconds for i in found.instances] == [0, 0]
    assert found.runs == frozenset()


def test_a_drained_instance_that_goes_is_withdrawn_and_its_run_asked_for_at_once() -> None:
    drained = {**UP, "phase": "Draining", "announced": False, "drained": True}
    found = step([instance("e1", **drained)], host("e1", running=True), deleting=True)
    assert (phases(found), found.runs) == ({"e1": "Withdrawn"}, {"e1"})
    waiting = step([instance("e1", **{**drained, "announced": True})], deleting=True)
    assert phases(waiting) == {"e1": "Draining"}


def test_an_instance_is_dropped_when_its_run_removed_it_and_gone_when_its_node_says_so() -> None:
    withdrawn = {**UP, "phase": "Withdrawn", "goal": "remove", "announced": False}
    assert phases(step([instance("e1", **withdrawn)], deleting=True)) == {"e1": "Withdrawn"}
    found = step([instance("e1", **{**withdrawn, "unit": "removed"})], deleting=True)
    assert (phases(found), found.dropped) == ({"e1": "Removed"}, {"e1"})
    removed = instance("e1", **{**withdrawn, "phase": "Removed", "unit": "removed"})
    assert phases(step([removed], deleting=True)) == {"e1": "Removed"}
    assert step([removed], host("e1", applied=True), deleting=True).instances == ()


def test_an_instance_is_dropped_when_no_sibling_passes_packets_on_to_it_any_more() -> None:
    removed = {**UP, "phase": "Withdrawn", "goal": "remove", "announced": False, "unit": "removed"}
    waits = step([instance("e1", **removed, listed=True), instance("e2", **UP)], host("e1", drain=True))
    assert phases(waits) == {"e1": "Withdrawn", "e2": "Serving"}
    assert waits.runs == waits.dropped == frozenset()
    found = step([instance("e1", **removed), instance("e2", **UP)], host("e1", drain=True))
    assert (phases(found)["e1"], found.dropped) == ("Removed", {"e1"})
    gone = step([instance("e1", **removed, listed=True)], deleting=True)
    assert phases(gone) == {"e1": "Removed"}, "of a gateway that is deleted nothing is left to be passed on"


@pytest.mark.parametrize("goal", [{"drain": True}, {"removing": True}])
def test_who_waits_for_agents_says_whose(goal: dict[str, bool]) -> None:
    state = {**UP, "phase": "Withdrawn", "announced": False, "unit": "removed", "listed": True}
    parked = instance("e1", **state, goal="park", awaits=("e2", "e3"))
    (found,) = [
        i for i in step([parked, instance("e2", **UP)], host("e1", **goal)).instances if i.node == "e1"
    ]
    assert (found.phase, found.reason.startswith("WaitsForAgents: e2, e3: ")) == ("Withdrawn", True)


def test_an_upgrade_restarts_one_instance_after_the_other() -> None:
    old = {**UP, "unit": "outdated"}
    first = step([instance("e1", **old), instance("e2", **old)], envoy_version="2")
    assert sorted(phases(first).values()) == ["Draining", "Serving"]
    (drains,) = [i for i in first.instances if i.phase == "Draining"]
    assert (drains.goal, drains.drain_seconds) == ("restart", 30)
    (waits,) = [i for i in first.instances if i.phase == "Serving"]
    assert waits.reason.startswith("WaitsForTurn")
    restarted = {**UP, "phase": "Prepared", "announced": False, "envoy_version": "2"}
    second = step([instance("e1", **restarted), instance("e2", **old)], envoy_version="2")
    assert phases(second) == {"e1": "Prepared", "e2": "Serving"}
    assert second.instances[1].reason.startswith("WaitsForReplacement")


def test_another_version_asks_for_a_run_before_anything_drains() -> None:
    found = step([instance("e1", **UP), instance("e2", **UP)], envoy_version="2")
    assert (phases(found), found.runs) == ({"e1": "Serving", "e2": "Serving"}, {"e1", "e2"})


def test_the_only_instance_is_replaced_before_it_goes_if_a_node_has_room() -> None:
    old = instance("e1", **{**UP, "unit": "outdated"})
    found = step([old], host("e2"), replicas=1)
    assert (phases(found), found.place) == ({"e1": "Serving"}, ("e2",))
    both = step([old, instance("e2", **UP)], replicas=1)
    assert phases(both) == {"e1": "Draining", "e2": "Serving"}
    assert phases(step([old], replicas=1)) == {"e1": "Draining"}, "there is no other way"


def test_a_drained_node_parks_what_others_can_carry() -> None:
    found = step([instance("e1", **UP), instance("e2", **UP)], host("e1", drain=True))
    assert phases(found) == {"e1": "Draining", "e2": "Serving"}
    parked = step([instance("e1", **PARKED), instance("e2", **UP)], host("e1", drain=True), host("e3"))
    assert (phases(parked), parked.place) == ({"e1": "Withdrawn", "e2": "Serving"}, ())


def test_what_nobody_else_can_carry_gets_a_replacement_or_stays_and_says_why() -> None:
    alone = [instance("e1", **UP)]
    found = step(alone, host("e1", drain=True), host("e2"), replicas=1)
    assert (phases(found), found.place) == ({"e1": "Serving"}, ("e2",))
    full = step(alone, host("e1", drain=True), host("e2", schedulable=False), replicas=1)
    assert phases(full) == {"e1": "Serving"}
    assert full.instances[0].reason.startswith("NoOtherInstance")


@pytest.mark.parametrize("why", [{"drain": True}, {"removing": True}])
def test_an_instance_that_no_router_hears_takes_nobodys_place(why: dict[str, bool]) -> None:
    both = [instance("e1", **UP), instance("e2", **UP)]
    found = step(both, host("e1", **why), host("e2", unheard=True))
    assert (phases(found), found.place) == ({"e1": "Serving", "e2": "Serving"}, ())
    assert found.instances[0].reason.startswith("NoOtherHeard")
    three = [*both, instance("e3", **UP)]
    assert phases(step(three, host("e1", **why), host("e2", unheard=True), replicas=3))["e1"] == "Draining"


@pytest.mark.parametrize("why", [{"drain": True}, {"removing": True}])
def test_who_drains_a_node_may_have_an_instance_that_no_router_hears_take_its_place(
    why: dict[str, bool],
) -> None:
    both = [instance("e1", **UP), instance("e2", **UP)]
    found = step(both, host("e1", unheard_ok=True, **why), host("e2", unheard=True))
    assert phases(found) == {"e1": "Draining", "e2": "Serving"}
    alone = step(both[:1], host("e1", unheard_ok=True, **why), replicas=1)
    assert alone.instances[0].reason.startswith("NoOtherInstance")


def test_a_drain_does_not_wait_for_a_session_while_a_node_with_one_has_room() -> None:
    both = [instance("e1", **UP), instance("e2", **UP)]
    nodes = [host("e1", drain=True), host("e2", unheard=True)]
    found = step(both, *nodes, host("e3"))
    assert (phases(found)["e1"], found.place) == ("Serving", ("e3",))
    assert found.instances[0].reason.startswith("WaitsForReplacement")
    assert step(both, *nodes, host("e3", unheard=True)).place == (), "that would be no help"
    asked = step(both, host("e1", drain=True, unheard_ok=True), nodes[1], host("e3"))
    assert (phases(asked)["e1"], asked.place) == ("Draining", ())
    done = step([*both, instance("e3", **UP)], *nodes)
    assert (phases(done)["e1"], done.place) == ("Draining", ())


def test_of_too_many_instances_those_go_that_no_router_hears() -> None:
    three = [instance(f"e{n}", **UP) for n in (1, 2, 3)]
    for unheard in ("e1", "e2", "e3"):
        found = step(three, host(unheard, unheard=True))
        assert [i.node for i in found.instances if i.draining] == [unheard]


def test_of_too_many_instances_one_without_room_for_its_tunnels_goes() -> None:
    for name in ("e1", "e2", "e3"):
        states = {node: "no-room" if node == name else "" for node in ("e1", "e2", "e3")}
        found = step([instance(node, **UP, unconnected=state) for node, state in states.items()])
        assert [i.node for i in found.instances if i.draining] == [name]


def test_an_instance_waits_for_its_tunnels_and_the_one_it_replaces_for_it() -> None:
    new = {"phase": "Prepared", "unit": "current", "ready": True, "envoy_version": "1"}
    both = [instance("e1", **UP), instance("e2", **new, unconnected="pending")]
    found = step(both, host("e1", drain=True), replicas=1)
    assert phases(found) == {"e1": "Serving", "e2": "Prepared"}
    assert found.instances[0].reason.startswith("WaitsForReplacement")
    assert found.instances[1].reason == "waits for its tunnels"


def test_an_instance_without_tunnels_takes_nobodys_place() -> None:
    empty = instance("e2", **UP, unconnected="no-room")
    found = step([instance("e1", **UP), empty], host("e1", removing=True))
    assert phases(found)["e1"] == "Serving"
    assert found.instances[0].reason.startswith("NoOtherConnected")
    silent = empty.model_copy(update={"announced": False})
    found = step([instance("e1", **UP), silent], host("e1", removing=True))
    assert found.instances[0].reason.startswith("NoOtherConnected"), "it is not known to come"
    assert found.instances[1].reason.startswith("NoRoom")


def test_an_instance_that_reaches_less_serves_but_takes_nobodys_place() -> None:
    both = [instance("e1", **UP), instance("e2", **UP, short=True)]
    found = step(both, host("e1", drain=True))
    assert phases(found)["e1"] == "Serving"
    assert found.instances[0].reason.startswith("NoOtherConnected")
    outdated = [instance("e1", **{**UP, "unit": "outdated"}), both[1]]
    assert phases(step(outdated)) == {"e1": "Draining", "e2": "Serving"}, "a restart is short"
    three = [*both, instance("e3", **UP)]
    assert [i.node for i in step(three).instances if i.draining] == ["e2"]


def test_an_update_waits_for_the_session_of_the_other_node() -> None:
    both = [instance("e1", **{**UP, "unit": "outdated"}), instance("e2", **UP)]
    assert phases(step(both, host("e2", unheard=True))) == {"e1": "Serving", "e2": "Serving"}
    assert phases(step(both)) == {"e1": "Draining", "e2": "Serving"}


def test_what_no_router_hears_may_leave_while_another_serves() -> None:
    both = [instance("e1", **UP), instance("e2", **UP)]
    assert phases(step(both, host("e1", drain=True, unheard=True)))["e1"] == "Draining"
    found = step(both, host("e1", drain=True, unheard=True), host("e2", unheard=True))
    assert phases(found) == {"e1": "Draining", "e2": "Serving"}
    alone = step(both[:1], host("e1", drain=True, unheard=True), replicas=1)
    assert alone.instances[0].reason.startswith("NoOtherInstance")


def test_a_session_that_goes_moves_nothing() -> None:
    both = [instance("e1", **UP), instance("e2", **UP)]
    for unheard in ({"e1"}, {"e2"}, {"e1", "e2"}):
        found = step(both, *(host(name, unheard=name in unheard) for name in ("e1", "e2", "e3")))
        assert (found.instances, found.place, found.runs) == (tuple(both), (), frozenset())
    parked = [instance("e1", **PARKED), instance("e2", **UP)]
    found = step(parked, host("e1", drain=True), host("e2", unheard=True), host("e3"))
    assert found.place == ()


def test_a_drain_of_the_node_that_no_router_hears_too_makes_room_for_one_that_they_hear() -> None:
    parked = [instance("e1", **UP), instance("e2", **PARKED)]
    found = step(parked, host("e1", drain=True), host("e2", drain=True, unheard=True), host("e3"))
    assert (phases(found)["e1"], found.place) == ("Serving", ("e3",))


def test_a_step_tells_how_many_instances_no_node_has_room_for() -> None:
    alone = [instance("e1", **UP)]
    assert step(alone, replicas=3).unplaced == 2
    assert step(alone, host("e2"), replicas=3).unplaced == 1
    assert step(alone, host("e2"), host("e3"), replicas=3).unplaced == 0
    assert step(alone, replicas=3, deleting=True).unplaced == 0
    assert step([instance("e1", **PARKED)], host("e1", drain=True), replicas=1).unplaced == 0


def test_a_parked_instance_serves_again_but_not_while_a_run_may_restart_it() -> None:
    parked = [instance("e1", **PARKED), instance("e2", **UP)]
    assert phases(step(parked, host("e1", running=True))) == {"e1": "Withdrawn", "e2": "Serving"}
    assert phases(step(parked)) == {"e1": "Prepared", "e2": "Serving"}


def test_what_was_said_of_an_earlier_drain_does_not_count() -> None:
    found = step([instance("e1", **{**UP, "drained": True}), instance("e2", **UP)], host("e1", drain=True))
    assert found.instances[0].drained is False


def test_a_surplus_instance_goes_when_the_others_serve() -> None:
    three = [instance(f"e{n}", **UP) for n in (1, 2, 3)]
    assert sorted(phases(step(three)).values()) == ["Draining", "Serving", "Serving"]
    two = [three[0], three[1], instance("e3", unit="current", phase="Prepared")]
    assert list(phases(step(two)).values()).count("Serving") == 2


def test_a_lost_node_takes_its_instances_with_it() -> None:
    found = step([instance("e1", **UP), instance("e2", **UP)], host("e1", lost=True), host("e3"))
    assert ([i.node for i in found.lost], phases(found), found.place) == (["e1"], {"e2": "Serving"}, ("e3",))


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[ProxyInstance], list[Host], int]:
    names = [f"e{n}" for n in range(1, 5)]
    hosts = [
        host(
            name,
            schedulable=draw(st.booleans()),
            drain=draw(st.booleans()),
            removing=draw(st.booleans()),
            running=draw(st.booleans()),
            applied=draw(st.booleans()),
        )
        for name in names
    ]
    placed = draw(st.lists(st.sampled_from(names), unique=True, max_size=4))
    instances = []
    for name in placed:
        phase = draw(st.sampled_from(["Planned", "Prepared", "Serving", "Draining", "Withdrawn", "Removed"]))
        serving = phase == "Serving" or (phase == "Prepared" and draw(st.booleans()))
        instances.append(
            instance(
                name,
                phase=phase,
                goal=draw(st.sampled_from(["serve", "park", "restart", "remove"])),
                unit=draw(st.sampled_from(["", "current", "outdated", "removed"])),
                ready=serving or draw(st.booleans()),
                announced=serving,
                drained=phase == "Withdrawn" or draw(st.booleans()),
                envoy_version=draw(st.sampled_from(["1", "2"])),
                run_error=draw(st.sampled_from(["", "RunFailed: x"])),
            )
        )
    return instances, hosts, draw(st.integers(1, 3))


@given(situations())
def test_whatever_the_situation_a_step_is_safe_and_repeating_it_changes_nothing(
    situation: tuple[list[ProxyInstance], list[Host], int],
) -> None:
    instances, hosts, replicas = situation
    found = step(instances, *hosts, replicas=replicas)
    before = {i.node: i for i in instances}
    left = [i for i in found.instances if before[i.node].announced and i.draining]
    assert len(left) <= 1, "two leave service at once"
    if left:
        others = [i for i in found.instances if i.announced and not i.draining]
        assert others or (left[0].goal == "restart" and len(instances) == 1), "nobody serves"
    for after in found.instances:
        known = before[after.node]
        if after.phase == "Withdrawn" != known.phase:
            assert known.drained, "withdrawn without the agent's word"
        if after.phase == "Removed" != known.phase:
            assert known.unit == "removed", "dropped before a run removed it"
    assert not set(found.place) & set(before), "two instances on one node"
    again = step(found.instances, *hosts, replicas=replicas)
    settled = step(again.instances, *hosts, replicas=replicas)
    assert {i.node: i.phase for i in settled.instances} == {i.node: i.phase for i in again.instances}


@pytest.mark.parametrize("wanted", [{}, {"deleting": True}, {"replicas": 1}, {"envoy_version": "2"}])
@pytest.mark.parametrize(
    "values", [UP, PARKED, {"phase": "Planned"}, {**UP, "phase": "Draining", "drained": True}]
)
def test_an_instance_stays_as_it_is_while_its_node_cannot_be_read(
    values: dict[str, Any], wanted: dict[str, Any]
) -> None:
    before = instance("e1", **values)
    found = step(
        [before], host("e1", schedulable=False, unreadable=True), host("e2"), **{"replicas": 1, **wanted}
    )
    assert (found.instances, found.lost, found.dropped) == ((before,), (), frozenset())
    # Who was parked is replaced as ever.
    assert found.place == (("e2",) if values is PARKED and not wanted.get("deleting") else ())
    assert found.runs == set(found.place)


def test_instances_keep_their_envoy_while_it_is_not_known_which_they_are_to_have() -> None:
    two = [instance("e1", **UP), instance("e2", **{**UP, "envoy_version": "0"})]
    assert step(two, envoy_version="1", keeps_versions=True).runs == frozenset()
    new = instance("e3", phase="Planned")
    assert step([*two, new], envoy_version="1", keeps_versions=True, replicas=3).runs == {"e3"}
    assert step([new], envoy_version="", keeps_versions=True, replicas=1).runs == frozenset()
