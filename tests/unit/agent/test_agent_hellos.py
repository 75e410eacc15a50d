# SPDX-License-Identifier: Apache-2.0
"""Hellos: who is answered, the counter that never falls, and what answers tell."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from ipaddress import IPv4Address

from agent_samples import KEY, A, B, tunnel, workload_tunnel

from epic.agent.settings import WorkloadUnderlay
from epic.agent.tunnel.health import HELLO_SECONDS, REMEMBERED, Health
from epic.agent.tunnel.packets import HELLO, HELLO_ACK, answer, verified
from epic.agent.workload.sender import HelloSender
from epic.bpf.packets import wire

TUNNELS = {7: replace(tunnel(), declared=A)}
FAR = (B, 40213)
GENERATIONS = {7: 1234}.__getitem__


def hello(id_: int = 7, key: bytes = KEY, lane: int = 0) -> bytes:
    return wire.encode(wire.Control(HELLO, id_, 5, 77, lane=lane, lanes=2), key)


def ack(source: tuple[object, int], lane: int = 0) -> wire.Control:
    """The answer to a hello that is seen at `source`."""
    packet = answer(hello(lane=lane), TUNNELS, 99, source, GENERATIONS)  # type: ignore[arg-type]
    assert packet is not None
    found = verified(packet, {7: workload_tunnel(A)})
    assert found is not None
    return found[0]


def test_a_hello_is_answered_with_its_counter_time_and_lane_and_the_generation() -> None:
    assert ack(FAR, lane=1) == wire.Control(HELLO_ACK, 7, 5, 99, 77, 1, 2, generation=1234)


def test_nothing_else_is_answered() -> None:
    assert answer(b"", TUNNELS, 1, FAR, GENERATIONS) is None
    assert answer(b"\x00" * 48, TUNNELS, 1, FAR, GENERATIONS) is None
    assert answer(hello(id_=8), TUNNELS, 1, FAR, GENERATIONS) is None
    assert answer(hello(key=bytes(16)), TUNNELS, 1, FAR, GENERATIONS) is None
    packet = answer(hello(), TUNNELS, 99, FAR, GENERATIONS)
    assert packet is not None
    assert answer(packet, TUNNELS, 1, FAR, GENERATIONS) is None


def test_a_lane_is_direct_when_it_is_seen_where_it_is() -> None:
    assert ack((A, 6080)).flags == wire.Flags.DIRECT
    assert ack((A, 6081), lane=1).flags == wire.Flags.DIRECT
    assert ack((A, 6080), lane=1).flags == wire.NO_FLAGS
    assert ack((B, 6080)).flags == wire.NO_FLAGS


def test_a_tunnel_lives_from_its_first_answer_until_it_is_silent() -> None:
    health = Health(since=100)
    health.sent(1, 100)
    assert (health.alive, health.loss(100)) == (False, None)
    assert health.pause(100, 0) - 100 < 1
    health.answered(1, 100.1, 0.125)
    assert (health.alive, health.loss(101), health.round_trip) == (True, 0, 0.125)
    assert health.next_hello > 104
    assert not health.is_silent(110)
    assert health.is_silent(120)


def test_one_lane_that_is_answered_keeps_a_tunnel_alive() -> None:
    health = Health()
    for second in range(0, 60, 5):
        for lane in range(2):
            health.sent(second * 2 + lane, second)
        health.answered(second * 2 + 1, second + 0.1, 0.1)
    assert health.alive
    assert not health.is_silent(60)
    assert health.loss(60) == 0.5


def test_an_unanswered_tunnel_is_asked_less_often_the_longer_it_takes() -> None:
    new = Health(since=100)
    assert [new.pause(100 + age, 0) - 100 - age for age in (0, 5, 10, 20, 50, 100)] == [
        0.5,
        0.5,
        1,
        2,
        HELLO_SECONDS,
        HELLO_SECONDS,
    ]


def test_a_tunnel_that_was_answered_once_is_asked_regularly_also_while_it_is_silent() -> None:
    health = Health(since=100)
    health.sent(1, 100)
    health.answered(1, 100.1, 0.1)
    health.alive = False
    assert health.pause(101, 0) == 101 + HELLO_SECONDS


def test_loss_and_round_trips_are_told_by_the_last_hellos() -> None:
    health = Health()
    for i in range(200):
        health.sent(i, i * 5)
        if i % 4:
            health.answered(i, i * 5 + 0.1, 0.001 * i)
            # An answer that comes twice counts once.
            health.answered(i, i * 5 + 0.2, 0.001 * i)
    assert health.loss(199 * 5 + 3) == 0.25
    assert len(health.round_trips) == REMEMBERED * 3 // 4
    assert [round(f(health.round_trips), 3) for f in (min, max)] == [0.141, 0.199]


def test_a_hello_under_way_is_not_lost_yet() -> None:
    health = Health()
    health.sent(1, 0)
    health.answered(1, 0.1, 0.1)
    health.sent(2, 5)
    assert health.loss(5.5) == 0
    assert health.loss(8) == 0.5


def sender(**underlay: object) -> tuple[HelloSender, list[str]]:
    changes: list[str] = []
    settings = WorkloadUnderlay.model_validate({"interface": "up0", **underlay})
    return HelloSender(lambda now: now, settings, lambda: changes.append("direct")), changes


def answered(
    said: HelloSender, flags: wire.Flags = wire.NO_FLAGS, generation: int = 0, counter: int = 1
) -> None:
    now = time.monotonic_ns()
    packet = wire.Control(HELLO_ACK, 7, counter, 2, now, flags=flags, generation=generation)
    said.receive(wire.encode(packet, KEY))


def test_new_keys_keep_what_is_known_of_a_tunnel_and_say_hello_at_once() -> None:
    said, _ = sender()
    before = workload_tunnel(A)
    said.set_tunnels({7: before}, {7: A})
    answered(said)
    assert said.health[7].next_hello > time.monotonic()
    said.set_tunnels({7: replace(before, keys=(bytes(16), KEY), epochs=(1, 2))}, {7: A})
    assert said.health[7].alive
    assert said.health[7].next_hello <= time.monotonic()
    said.set_tunnels({7: replace(before, epic_address=A)}, {7: A})
    assert not said.health[7].alive


def test_another_address_of_this_node_says_hello_at_once() -> None:
    said, _ = sender()
    said.set_tunnels({7: workload_tunnel(A)}, {7: A})
    answered(said)
    said.set_tunnels({7: workload_tunnel(A)}, {7: A})
    assert said.health[7].next_hello > time.monotonic()
    said.set_tunnels({7: workload_tunnel(A)}, {7: B})
    assert said.health[7].next_hello <= time.monotonic()


async def test_a_hello_that_was_not_believed_is_said_again_at_once() -> None:
    said, _ = sender(interface="lo", lanes=2)
    epic = IPv4Address("127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as node:
        node.bind((str(epic), 0))
        node.setblocking(False)
        said.open()
        said.set_tunnels(
            {7: replace(workload_tunnel(A, epic=epic), epic_port=node.getsockname()[1])}, {7: epic}
        )
        task = asyncio.create_task(said.run())
        try:
            async with asyncio.timeout(60):
                first = [await heard(node) for _ in range(2)]
                for hello in first:
                    answered(said, generation=99, counter=hello.counter)
                assert not said.health[7].alive
                again = [await heard(node) for _ in range(2)]
                answered(said, generation=99, counter=again[0].counter)
            assert [hello.generation for hello in first + again] == [0, 0, 99, 99]
            assert said.health[7].alive
            assert said.health[7].next_hello > time.monotonic() + 1
        finally:
            task.cancel()
            said.close()


async def heard(node: socket.socket) -> wire.Control:
    return wire.decode(await asyncio.get_running_loop().sock_recv(node, 100), KEY)


def test_answers_tell_whether_a_tunnel_is_direct() -> None:
    said, changes = sender(spread=True)
    said.set_tunnels({7: workload_tunnel(A)}, {7: A})
    answered(said, wire.Flags.DIRECT)
    answered(said, wire.Flags.DIRECT)
    assert (said.direct, changes) == ({7}, ["direct"])
    answered(said)
    assert (said.direct, len(changes)) == (frozenset(), 2)
