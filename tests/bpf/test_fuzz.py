# SPDX-License-Identifier: Apache-2.0
"""Mutated and random packets: the kernel does with each what the rules say, and accepts no changed one.

EPIC_FUZZ_PACKETS is how many all tests of this file run together, EPIC_FUZZ_SEED begins another sequence.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator

import fuzzing
import oracle
import oracle_send
import pytest
from frames import ALL, INSIDE, INSIDE6, MAPPED, MAPPED6, TUNNEL, Families, gue, ip, outer
from fuzzing import COUNT, SEED
from host import (
    EGRESS,
    GATEWAY,
    GATEWAY_EGRESS,
    GATEWAY_PIECES,
    GATEWAY_XDP,
    INSTANCE,
    POD,
    WORKLOAD,
    WORKLOAD_PIECES,
    WORKLOAD_XDP,
    Host,
)
from kernel import OPENS_OTHER_FAMILY
from oracle import DROPPED, NOT_OURS, Outcome, World
from scapy.layers.inet import TCP
from testrun import XDP_PASS

from epic.bpf.dataplane import Endpoint

pytestmark = [pytest.mark.root, pytest.mark.timeout(0)]

BATCH = 4096
ERRORS_AT_ONCE = 100
"""ICMP errors of others that a tunnel passes on; the rules know of no time."""
HELLOS_AT_ONCE = 16
SENDING = (INSTANCE, GATEWAY_EGRESS, EGRESS, POD, GATEWAY_PIECES, WORKLOAD_PIECES)
PROGRAMS = (GATEWAY, WORKLOAD, GATEWAY_XDP, WORKLOAD_XDP, *SENDING)
SHARE = COUNT // (2 * (len(PROGRAMS) + 1)) + 1
OVER = pytest.mark.parametrize("over", [4, 6])
Rule = Callable[[bytes, World], Outcome]

RULES: dict[str, Rule] = {
    GATEWAY: oracle.receive,
    WORKLOAD: oracle.receive,
    INSTANCE: oracle_send.instance_sends,
    GATEWAY_EGRESS: oracle_send.gateway_sends,
    EGRESS: lambda frame, world: oracle_send.workload_sends(frame, world, pod=False),
    GATEWAY_PIECES: oracle_send.piece_returns,
    WORKLOAD_PIECES: oracle_send.piece_returns,
    POD: lambda frame, world: oracle_send.workload_sends(frame, world, pod=True),
}


def prepare(host: Host, over: int) -> None:
    """As `fuzzing.world` says."""
    host.reset(over)
    host.gateway.set_endpoint(INSIDE, MAPPED, Endpoint(TUNNEL, real=fuzzing.REAL))
    host.gateway.set_endpoint(INSIDE6, MAPPED6, Endpoint(TUNNEL, real=fuzzing.REAL6))


def good_frames(program: str, over: int) -> list[bytes]:
    role = program.split(maxsplit=1)[0]
    if program in SENDING:
        return fuzzing.sent(role)
    return fuzzing.received(role, over)


def judge(host: Host, program: str, world: World, frames: list[bytes]) -> Counter[str]:
    """Run frames; each must end as the rule says. What they are to be dropped for, and how they end."""
    run, rule = host.program(program).run, RULES[program]
    seen: Counter[str] = Counter()
    for number, frame in enumerate(frames):
        verdict, packet, reason = rule(frame, world)
        if number % ERRORS_AT_ONCE == 0:
            host.allow_errors()
        if program == GATEWAY and number % HELLOS_AT_ONCE == 0:
            host.allow_hellos()
        try:
            ran = run(frame)
        except OSError:
            # The kernel refuses to make a buffer of what is shorter than its IP header.
            assert len(frame) < 54
            continue
        wrong = ran.verdict != verdict or (verdict != DROPPED and ran.packet != packet)
        assert not wrong, (
            f"{frame.hex()}: {ran.verdict} {ran.packet.hex()}, not {verdict} {packet.hex()} {reason}"
        )
        if reason:
            seen[reason] += 1
        seen["dropped" if verdict == DROPPED else "left" if verdict == NOT_OURS else "redirected"] += 1
    return seen


def counted(host: Host, role: str, before: dict[str, int]) -> dict[str, int]:
    return {name: n - before[name] for name, n in host.state(role).drops.items() if n != before[name]}


@OVER
@pytest.mark.parametrize("program", RULES)
def test_the_kernel_and_the_rules_agree_on_any_packet(host: Host, program: str, over: int) -> None:
    prepare(host, over)
    role = program.split(maxsplit=1)[0]
    world, source = fuzzing.world(role, over), random.Random(f"{SEED} {program} {over}")
    world.counters[TUNNEL, 0] = 1 if world.gateway else 0
    world.keeps_family = not OPENS_OTHER_FAMILY
    good = good_frames(program, over)
    frames = itertools.chain(good, itertools.islice(fuzzing.mutations(source, good), SHARE))
    total: Counter[str] = Counter()
    start = host.state(role).counters
    while batch := list(itertools.islice(frames, BATCH)):
        before = host.state(role).drops
        seen = judge(host, program, world, batch)
        reasons = {name: n for name, n in seen.items() if name in before}
        assert counted(host, role, before) == reasons
        total += seen
    end = host.state(role).counters
    assert (end.rx_packets - start.rx_packets, end.rx_bytes - start.rx_bytes) == tuple(world.received)
    assert (end.tx_packets - start.tx_packets, end.tx_bytes - start.tx_bytes) == tuple(world.sent)
    redirects = program in SENDING and program != GATEWAY_EGRESS
    assert {"dropped", "redirected" if redirects else "left"} <= set(total)
    print(program, over, dict(total))


@OVER
@pytest.mark.parametrize("program", [GATEWAY_XDP, WORKLOAD_XDP])
def test_what_is_taken_out_is_what_the_filter_would_take(host: Host, program: str, over: int) -> None:
    prepare(host, over)
    role = program.split(maxsplit=1)[0]
    world, source = fuzzing.world(role, over), random.Random(f"{SEED} {program} {over}")
    good = good_frames(program, over)
    frames = itertools.chain(good, itertools.islice(fuzzing.mutations(source, good), SHARE))
    run, taken = host.program(program).take_out, 0
    before = host.state(role)
    for frame in frames:
        if len(frame) < 14:
            continue
        expected = oracle.take_out(frame, world)
        out = run(frame)
        assert out[:2] == (XDP_PASS, frame if expected is None else expected), frame.hex()
        assert bool(out.metadata) == (expected is not None), frame.hex()
        taken += expected is not None
    assert taken
    assert host.state(role) == before


def changed_frames(good: bytes, families: Families, source: random.Random) -> Iterator[bytes]:
    """Frames of which something changed that is bound."""
    positions = fuzzing.bound(families.over, families.inner)
    fixed = [place - positions[0] for place in positions]
    free = {20, 21, 24, 25, 26, 27, 28, 30, 31} if families.inner == 4 else {20, 21, 22, 23, 27}
    for frame in fuzzing.mutations(source, [good], positions):
        start = positions[0]
        if any(
            frame[start + place : start + place + 1] != good[start + place : start + place + 1]
            for place in fixed
            if place not in free
        ):
            yield frame


@pytest.mark.parametrize("families", ALL, ids=str)
@pytest.mark.parametrize("program", [GATEWAY, WORKLOAD])
def test_nothing_that_the_tag_binds_can_be_changed(host: Host, program: str, families: Families) -> None:
    prepare(host, families.over)
    role, source = program.split(maxsplit=1)[0], random.Random(f"{SEED} bound {program} {families}")
    if program == GATEWAY:
        head, inner = outer(families.nat, families.epic), ip(families.endpoint, families.inside) / TCP()
    else:
        head, inner = outer(families.epic, families.node), ip(families.inside, families.endpoint) / TCP()
    good = bytes(head / gue(inner) / inner)
    run, before = host.program(program).run, host.state(role)
    for frame in itertools.islice(changed_frames(good, families, source), SHARE // 4):
        # The outer addresses and ports may have been changed too: then it is somebody else's.
        assert run(frame).verdict in (DROPPED, NOT_OURS), frame.hex()
    assert host.state(role)[:2] == before[:2]
