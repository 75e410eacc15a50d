# SPDX-License-Identifier: Apache-2.0
"""What an agent waits for before it announces anything on a node where nothing is announced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from epic.agent.gateway import announcement
from epic.agent.gateway.announcement import Hold
from epic.agent.gateway.control.resource_cache import ResourceCache


@dataclass
class Clock:
    """Seconds, as the agent has them."""

    now: float = 100.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class Control:
    """The control plane, as the agent's client hears it."""

    heard: bool = False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(announcement, "time", made)
    return made


def stored(*tunnels: int) -> ResourceCache:
    """What was on disk: these tunnels."""
    cache = ResourceCache()
    cache.tunnels.update(dict.fromkeys(tunnels, cast("Any", None)))
    return cache


def test_who_finds_something_announced_waits_for_nothing() -> None:
    assert not Hold(Control(), stored(1), standing=True).holds(())


def test_who_had_no_tunnels_waits_for_the_control_plane_alone(clock: Clock) -> None:
    cache = stored()
    hold = Hold(Control(heard=True), cache, standing=False)
    assert hold.holds(())
    cache.node_state = cast("Any", object())
    # nobody had them: they are waited for by newcomers
    cache.tunnels[7] = cast("Any", None)
    assert not hold.holds(())


def test_a_control_plane_that_is_silent_is_waited_for_five_seconds(clock: Clock) -> None:
    hold = Hold(Control(), stored(), standing=False)
    clock.now += 4.9
    assert hold.holds(())
    clock.now += 0.2
    assert not hold.holds(())


def test_a_host_that_started_anew_announces_nothing_before_far_ends_have_said_where_they_are(
    clock: Clock,
) -> None:
    cache = stored(1, 2)
    cache.node_state = cast("Any", object())
    hold = Hold(Control(heard=True), cache, standing=False)
    assert hold.holds({1})
    assert not hold.holds({1, 2})
    assert not hold.holds(()), "it is over for good"


def test_far_ends_that_never_say_hello_are_not_waited_for_longer_than_those_that_do_could_take(
    clock: Clock,
) -> None:
    hold = Hold(Control(), stored(1, 2), standing=False)
    clock.now += 5.1
    assert hold.holds({1}), "first the control plane was waited for"
    clock.now += 5.9
    assert hold.holds({1})
    clock.now += 0.2
    assert not hold.holds({1})


def test_tunnels_that_are_no_more_are_not_waited_for(clock: Clock) -> None:
    cache = stored(1, 2)
    cache.node_state = cast("Any", object())
    hold = Hold(Control(heard=True), cache, standing=False)
    assert hold.holds({1})
    del cache.tunnels[2]
    assert not hold.holds({1})
