"""Hellos: who is answered, the counter that never falls, and what answers tell."""

from __future__ import annotations

import time
from dataclasses import replace

from agent_samples import KEY, A, tunnel, workload_tunnel

from epic.agent.control_packets import HELLO_ACK, answer, hello, verified
from epic.agent.hello_sender import (
    HELLO_SECONDS,
    Counter,
    Health,
    HelloSender,
    answered,
    is_silent,
    sent,
)

TUNNELS = {7: tunnel()}


def test_a_hello_is_answered_with_its_counter_and_time() -> None:
    ack = answer(hello(7, KEY, 5, 77), TUNNELS, 99)
    assert ack is not None
    found = verified(ack, {7: workload_tunnel(A)})
    assert found is not None
    control, _ = found
    assert (control.kind, control.counter, control.sent_ns, control.echo_ns) == (HELLO_ACK, 5, 99, 77)


def test_nothing_else_is_answered() -> None:
    assert answer(b"", TUNNELS, 1) is None
    assert answer(b"\x00" * 40, TUNNELS, 1) is None
    assert answer(hello(8, KEY, 5, 77), TUNNELS, 1) is None
    assert answer(hello(7, bytes(16), 5, 77), TUNNELS, 1) is None
    ack = answer(hello(7, KEY, 5, 77), TUNNELS, 99)
    assert ack is not None
    assert answer(ack, TUNNELS, 1) is None


def test_the_counter_follows_the_clock_and_never_falls() -> None:
    written: list[int] = []
    counter = Counter(0, written.append)
    assert [counter.next(1000), counter.next(1000), counter.next(500), counter.next(2000)] == [
        1000,
        1001,
        1002,
        2000,
    ]
    assert written == [1000 + Counter.RESERVE_NS]
    assert Counter(written[0], written.append).next(2001) > 2000


def test_a_tunnel_lives_from_its_first_answer_until_it_is_silent() -> None:
    new = sent(Health(since=100), 1, 100, 0)
    assert (new.alive, new.loss(100)) == (False, None)
    assert new.next_hello - 100 < 1
    alive = answered(new, 1, 100.1, 0.1)
    assert (alive.alive, alive.loss(101), alive.round_trip) == (True, 0, 0.1)
    assert alive.next_hello > 104
    assert not is_silent(alive, 110)
    assert is_silent(alive, 120)


def test_an_unanswered_tunnel_is_asked_less_often_after_a_while() -> None:
    assert sent(Health(since=100), 1, 200, 0).next_hello == 200 + HELLO_SECONDS


def test_loss_and_round_trips_are_told_by_the_last_hellos() -> None:
    health = Health(since=0)
    for i in range(200):
        health = sent(health, i, i * 5, 0)
        if i % 4:
            health = answered(health, i, i * 5 + 0.1, 0.001 * i)
            # An answer that comes twice counts once.
            health = answered(health, i, i * 5 + 0.2, 0.001 * i)
    now = 199 * 5 + 3
    assert health.loss(now) == 0.25
    assert len(health.last) == 60
    assert [round(f(health.round_trips), 3) for f in (min, max)] == [0.141, 0.199]


def test_a_hello_under_way_is_not_lost_yet() -> None:
    health = answered(sent(Health(), 1, 0, 0), 1, 0.1, 0.1)
    asked = sent(health, 2, 5, 0)
    assert asked.loss(5.5) == 0
    assert asked.loss(8) == 0.5


def test_new_keys_keep_what_is_known_of_a_tunnel_and_say_hello_at_once() -> None:
    sender = HelloSender(Counter(0, lambda _: None))
    before = workload_tunnel(A)
    sender.set_tunnels({7: before})
    sender._health[7] = answered(sent(sender.health[7], 1, 100, 0), 1, 100.1, 0.1)
    sender.set_tunnels({7: replace(before, keys=(bytes(16), KEY), epochs=(1, 2))})
    assert (sender.health[7].alive, sender.health[7].round_trips) == (True, (0.1,))
    assert sender.health[7].next_hello <= time.monotonic()
    sender.set_tunnels({7: replace(before, epic_address=A)})
    assert not sender.health[7].alive
