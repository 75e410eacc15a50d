# SPDX-License-Identifier: Apache-2.0
"""Who waits for whom, what is released, and how keys are rotated, as nodes say what they have."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_listing import ALL, TIME, alive, epochs, leaving, lists

from epic.model.instances import ProxyInstance
from epic.model.siblings import SiblingsSpec
from epic.rotation import Policy, Step
from epic.siblings import rotation
from epic.siblings.listing import dismiss, noted, relist
from epic.siblings.waiting import (
    HELD,
    HOLD_MAX,
    Said,
    awaited,
    forgotten,
    is_held,
    late,
    release,
    waits_for,
)

POLICY = Policy(timedelta(minutes=10), timedelta(seconds=30))
SECRET = "77" * 16


def versioned(spec: SiblingsSpec) -> SiblingsSpec:
    return noted(spec, f"v{spec.generation}")


def history(*states: tuple[str, ...]) -> SiblingsSpec:
    """The list after each of these sets of nodes, each published."""
    spec = versioned(lists(tuple(map(alive, states[0]))))
    for state in states[1:]:
        spec = versioned(lists(tuple(map(alive, state)), spec=spec))
    return spec


def said(**versions: str | None) -> dict[str, Said]:
    return {node: Said(version, 1.0, 60.0) for node, version in versions.items()}


def newcomer(**values: object) -> ProxyInstance:
    return ProxyInstance.model_validate(
        {"node": "e2", "inside-address": "100.64.0.1", "hold": HELD, **values}
    )


@pytest.mark.parametrize(
    ("e1", "e2", "waiting"),
    [
        ("v1", None, ("e1", "e2")),
        ("v2", "", ("e2",)),
        ("v1", "v2", ("e1",)),
        ("v2", "v2", ()),
        ("unheard of", "v2", ("e1",)),
    ],
)
def test_a_newcomer_waits_until_the_others_know_it_and_it_knows_them(
    e1: str, e2: str | None, waiting: tuple[str, ...]
) -> None:
    spec = history(("e1",), ("e1", "e2"))
    assert waits_for(spec, "e2", said(e1=e1, e2=e2)) == waiting
    assert is_held(spec, newcomer(), said(e1=e1, e2=e2), spec.changed) == bool(waiting)


def test_a_later_list_will_do_as_well() -> None:
    spec = history(("e1",), ("e1", "e2"), ("e1", "e2", "e3"))
    assert waits_for(spec, "e2", said(e1="v3", e2="v2", e3="")) == ("e3",)
    assert waits_for(spec, "e2", said(e1="v2", e2="v2", e3="v3")) == ()


def test_nobody_waits_for_a_node_that_does_not_report() -> None:
    spec = history(("e1",), ("e1", "e2"))
    heard = {"e1": Said("v1", 13.0), "e2": Said("v2", 1.0)}
    assert not is_held(spec, newcomer(), heard, spec.changed)
    assert is_held(spec, newcomer(), heard | {"e1": Said("v1", 11.0)}, spec.changed)


def test_nobody_waits_for_longer_than_ten_seconds() -> None:
    spec = history(("e1",), ("e1", "e2"))
    for seconds in range(30):
        time = spec.changed + timedelta(seconds=seconds)
        assert is_held(spec, newcomer(), said(e1="v1", e2=""), time) == (seconds < 10)


@pytest.mark.parametrize("state", [{"announced": True}, {"hold": ""}, {"node": "e9"}])
def test_who_is_announced_or_waits_no_more_or_is_not_listed_is_not_held(
    state: dict[str, object],
) -> None:
    spec = history(("e1",), ("e1", "e2"))
    assert not is_held(spec, newcomer(**state), said(e1="v1", e2=""), spec.changed)


def test_an_index_is_free_when_all_have_a_list_without_it_and_its_keys_are_gone() -> None:
    spec = history(("e1", "e2", "e3"), ("e2", "e3"))
    aged = spec.model_copy(update={"keys": spec.keys[1:], "signing_epoch": 2})
    assert release(aged, said(e2="v2", e3="v1")) is aged
    assert release(aged, said(e2="v2", e3=None)) is aged
    assert release(spec, said(e2="v2", e3="v2")) is spec
    assert release(aged, said(e2="v2", e3="v2")).former == ()
    assert release(aged, said(e2="v2", e3="")).former == ()


def departure() -> SiblingsSpec:
    """A list that e1 leaves, published."""
    both = history(("e1", "e2", "e3"))
    return versioned(lists((leaving("e1"), alive("e2"), alive("e3")), spec=both))


@pytest.mark.parametrize(
    ("e2", "e3", "gone"),
    [
        ("v1", "v2", ()),
        ("v2", None, ()),
        ("v2", "unheard of", ()),
        ("v2", "v2", ("e1",)),
        ("v2", "", ("e1",)),
    ],
)
def test_who_leaves_stays_until_all_others_have_a_list_in_which_it_leaves(
    e2: str, e3: str | None, gone: tuple[str, ...]
) -> None:
    assert forgotten(departure(), said(e1="v1", e2=e2, e3=e3), ()) == gone


def test_a_node_whose_agent_is_stopped_is_waited_for_as_long_as_its_programs_run() -> None:
    """They go on with the list that they have, and pass packets on to who has left."""
    spec = departure()
    heard = {**said(e1="v2", e2="v2"), "e3": Said("v1", 1e6)}
    assert forgotten(spec, heard, ()) == ()
    assert forgotten(spec, heard, {"e2"}) == ()


def test_a_node_that_has_been_silent_to_all_others_for_a_while_is_not_waited_for() -> None:
    spec = departure()
    heard = {**said(e1="v2", e2="v2"), "e3": Said("v1", 1e6)}
    assert forgotten(spec, heard, {"e3"}) == ("e1",)


def test_who_takes_long_to_say_that_it_passes_nothing_on_is_named() -> None:
    spec = departure()
    heard = {**said(e1="v2", e2="v2"), "e3": Said("v1", 1e6)}
    left = spec.leaving[0].since
    assert awaited(spec, heard, (), left + HOLD_MAX - timedelta(seconds=1)) == {}
    assert awaited(spec, heard, (), left + HOLD_MAX) == {"e1": ("e3",)}
    assert awaited(spec, heard, {"e3"}, left + HOLD_MAX) == {"e1": ()}


def test_nobody_waits_for_one_that_leaves_and_it_is_not_late() -> None:
    spec = departure()
    both = versioned(lists((leaving("e1"), alive("e2"), alive("e3"), alive("e4")), spec=spec))
    heard = said(e1="v1", e2="v3", e3="v3", e4="v3")
    assert waits_for(both, "e4", heard) == ()
    assert late(both, heard, both.changed + HOLD_MAX) == ()
    alone = versioned(lists((leaving("e1"), alive("e2")), spec=history(("e1", "e2"))))
    assert not is_held(alone, newcomer(), said(e1="v1", e2=""), alone.changed)


@given(st.lists(st.tuples(st.sampled_from(["e1", "e2", "e3"]), st.booleans()), max_size=60))
def test_whoever_is_passed_something_on_to_has_a_list(events: list[tuple[str, bool]]) -> None:
    """Nodes leave, come back and take the newest list in any order; who has come has the list first."""
    spec, time, here = history(("e1", "e2", "e3")), TIME, {"e1", "e2", "e3"}
    programs = dict.fromkeys(spec.nodes, spec)
    for node, takes in events:
        if takes:
            programs = {n: spec if n == node else held for n, held in programs.items() if n in spec.nodes}
        elif here ^ {node}:
            here ^= {node}
            states = [alive(n) if n in here else leaving(n) for n in ("e1", "e2", "e3")]
            spec = versioned(relist(spec, states, ALL, time, SECRET))
            if node in here:
                programs[node] = spec
        heard = {n: Said(programs[n].version, 1.0, 60.0) for n in spec.nodes}
        gone = forgotten(spec, heard, ())
        if gone:
            spec = versioned(dismiss(spec, gone, time, SECRET))
            programs = {n: held for n, held in programs.items() if n not in gone}
        asked = {n for held in programs.values() for n in held.staying}
        assert asked <= programs.keys()


def test_who_has_not_taken_the_newest_list_is_late_after_a_while() -> None:
    spec = history(("e1", "e2"))
    heard = said(e1="v1", e2="")
    assert late(spec, heard, spec.changed + timedelta(seconds=9)) == ()
    assert late(spec, heard, spec.changed + HOLD_MAX) == ("e2",)


def test_a_key_is_rotated_in_three_steps_each_when_all_have_the_one_before() -> None:
    spec = history(("e1", "e2"))
    time = TIME + timedelta(minutes=11)
    for step, keys, signing in [(Step.BEGIN, [1, 2], 1), (Step.SIGN, [1, 2], 2), (Step.FINISH, [2], 2)]:
        behind = said(e1=spec.version, e2="older")
        assert rotation.next_step("a.g", spec, behind, time, POLICY) is None
        assert rotation.next_step("a.g", spec, said(e1=spec.version, e2=spec.version), time, POLICY) is step
        spec = versioned(rotation.take(spec, step, time, SECRET))
        assert (epochs(spec), spec.signing_epoch) == (keys, signing)
    assert rotation.next_step("a.g", spec, said(e1=spec.version, e2=spec.version), time, POLICY) is None


def test_an_old_key_verifies_for_a_while_after_nobody_signs_with_it() -> None:
    spec = history(("e1", "e2"))
    for step in (Step.BEGIN, Step.SIGN):
        spec = versioned(rotation.take(spec, step, TIME, SECRET))
    heard = {"e1": Said(spec.version, 1.0, 60.0), "e2": Said(spec.version, 1.0, 29.0)}
    assert rotation.next_step("a.g", spec, heard, TIME, POLICY) is None
    heard["e2"] = Said(spec.version, 1.0, 30.0)
    assert rotation.next_step("a.g", spec, heard, TIME, POLICY) is Step.FINISH


def test_the_key_of_one_alone_is_not_rotated_but_what_one_who_left_knows_is() -> None:
    later = TIME + timedelta(days=1)
    alone = history(("e1",))
    assert rotation.next_step("a.g", alone, said(e1="v1"), later, POLICY) is None
    left = history(("e1", "e2"), ("e1",))
    assert (epochs(left), rotation.next_step("a.g", left, said(e1="v2"), TIME, POLICY)) == ([1, 2], Step.SIGN)


@given(st.lists(st.tuples(st.sampled_from(["e1", "e2", "e3"]), st.booleans()), max_size=60))
def test_whatever_is_signed_is_verified_by_all_while_nobody_is_removed(
    events: list[tuple[str, bool]],
) -> None:
    """Nodes come, go and take the newest list in any order; who goes has none from then on."""
    spec, time = history(("e1", "e2", "e3")), TIME
    programs = dict.fromkeys(spec.nodes, spec)
    for node, takes in events:
        time += timedelta(minutes=4)
        if takes and node in spec.nodes:
            programs[node] = spec
        elif not takes:
            here = set(spec.nodes) ^ {node}
            programs.pop(node, None)
            spec = versioned(relist(spec, [alive(n) for n in sorted(here)], ALL, time, SECRET))
        heard = {n: Said(programs[n].version if n in programs else "", 1.0, 60.0) for n in spec.nodes}
        spec = release(spec, heard)
        step = rotation.next_step("a.g", spec, heard, time, POLICY)
        if step is not None:
            spec = versioned(rotation.take(spec, step, time, SECRET))
        lists_in_use = programs.values()
        assert all(a.signing_epoch in epochs(b) for a in lists_in_use for b in lists_in_use)
