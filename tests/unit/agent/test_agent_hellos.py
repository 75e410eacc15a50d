"""Hellos: who is answered, the counter that never falls, and what answers tell."""

from __future__ import annotations

from agent_samples import KEY, A, tunnel, workload_tunnel

from epic.agent.control_packets import HELLO_ACK, answer, hello, verified
from epic.agent.hello_sender import HELLO_SECONDS, Counter, Health, answered, is_silent, sent

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
    new = sent(Health(since=100), 100, 0)
    assert (new.alive, new.lost) == (False, 1)
    assert new.next_hello - 100 < 1
    alive = answered(new, 100.1, 0.1)
    assert (alive.alive, alive.lost, alive.round_trip) == (True, 0, 0.1)
    assert alive.next_hello > 104
    assert not is_silent(alive, 110)
    assert is_silent(alive, 120)


def test_an_unanswered_tunnel_is_asked_less_often_after_a_while() -> None:
    assert sent(Health(since=100), 200, 0).next_hello == 200 + HELLO_SECONDS
