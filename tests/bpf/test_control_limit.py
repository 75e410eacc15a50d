# SPDX-License-Identifier: Apache-2.0
"""So many hellos of a tunnel reach the agent and no more."""

from __future__ import annotations

import time

import pytest
from frames import ALL, GENERATION, OTHER_TUNNEL, hello
from host import GATEWAY, LANES, Host

pytestmark = pytest.mark.root

BURST, INTERVAL_NS = 16, 250_000_000
GENERATIONS = pytest.mark.parametrize("generation", [GENERATION, 0], ids=["present", "another"])


def flood(host: Host, first: int, **changes: object) -> int:
    """How many hellos, each of a counter of its own, the agent gets before there are too many."""
    for passed in range(100 * BURST):
        reason = host.dropped(GATEWAY, hello(ALL[0], first + passed, **changes))  # type: ignore[arg-type]
        if reason is not None:
            assert reason == "hello_limit"
            return passed
    raise AssertionError("there is no limit")


@GENERATIONS
def test_a_flood_of_hellos_does_not_come_to_the_agent(host: Host, generation: int) -> None:
    host.allow_hellos()
    begun = time.monotonic_ns()
    passed = flood(host, 1000, generation=generation)
    assert BURST <= passed <= BURST + (time.monotonic_ns() - begun) // INTERVAL_NS + 1


@GENERATIONS
def test_a_hello_that_was_too_many_has_used_no_counter(host: Host, generation: int) -> None:
    dropped = 1000 + flood(host, 1000, generation=generation)
    host.allow_hellos()
    assert host.dropped(GATEWAY, hello(ALL[0], dropped, generation=generation)) is None


def test_a_flood_leaves_other_tunnels_their_hellos(host: Host) -> None:
    host.add_other_tunnel()
    flood(host, 1000)
    assert host.dropped(GATEWAY, hello(ALL[0], 1000, tunnel=OTHER_TUNNEL)) is None
    host.forget_other_tunnel()


@GENERATIONS
def test_what_was_captured_uses_up_nothing(host: Host, generation: int) -> None:
    captured = hello(ALL[0], 1000, generation=generation)
    assert host.dropped(GATEWAY, captured) is None
    host.allow_hellos()
    for _ in range(2 * BURST):
        assert host.dropped(GATEWAY, captured) == "control_replayed"
    assert host.dropped(GATEWAY, hello(ALL[0], 1001)) is None


def test_a_workload_node_that_keeps_to_its_pace_is_heard_in_all_lanes(host: Host) -> None:
    """At first twice a second, and again at once when it learns the generation."""
    host.allow_hellos()
    for generation in (0, GENERATION):
        for lane in LANES:
            packet = hello(ALL[0], 1000 + lane, lane=lane, lanes=4, generation=generation)
            assert host.dropped(GATEWAY, packet) is None
