"""Mutated packets: the kernel accepts exactly those that the rules accept, and no changed one."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator

import oracle
import pytest
from gue_scapy import HELLO, HELLO_ACK
from host import (
    ENDPOINT,
    EPIC,
    INSIDE,
    NAT,
    NODE,
    SHOT,
    Host,
    control,
    gateway_tunnel,
    gue,
    outer,
    workload_tunnel,
)
from scapy.layers.inet import IP, TCP, UDP

pytestmark = pytest.mark.root

# All tests of this file together.
COUNT = int(os.environ.get("EPIC_FUZZ_PACKETS", "20000"))
# What the tag, the lengths and the map entries bind: everything of it that changes must be refused.
BOUND = [*range(42, 62), 64, 65, 71, *range(74, 82)]
TARGETS = {
    "gateway gateway_underlay_ingress": gateway_tunnel(),
    "workload workload_underlay_ingress": workload_tunnel(),
}


def seeds(program: str) -> list[bytes]:
    reply = IP(src=str(ENDPOINT), dst=str(INSIDE)) / TCP() / b"payload"
    request = IP(src=str(INSIDE), dst=str(ENDPOINT)) / UDP() / b"payload"
    if program.startswith("gateway"):
        frames = [outer(NAT, EPIC) / gue(reply) / reply, control(NAT, EPIC, 1 << 62, HELLO)]
    else:
        frames = [outer(EPIC, NODE) / gue(request) / request, control(EPIC, NODE, 1 << 62, HELLO_ACK)]
    return [bytes(frame) for frame in frames]


def mutations(source: random.Random, frame: bytes, positions: list[int]) -> Iterator[bytes]:
    """Endless: bits flipped, bytes replaced, cut, lengthened, mixed."""
    while True:
        changed = bytearray(frame)
        for _ in range(source.choice((1, 1, 1, 2, 3, 8))):
            position = source.choice(positions)
            changed[position] = source.choice(
                (changed[position] ^ 1 << source.randrange(8), source.randrange(256))
            )
        how = source.randrange(10)
        if how == 0:
            del changed[source.randrange(42, len(changed)) :]
        elif how == 1:
            changed += source.randbytes(source.randrange(1, 60))
        yield bytes(changed)


@pytest.mark.parametrize("program", TARGETS)
def test_the_kernel_and_the_rules_agree_on_any_mutation(host: Host, program: str) -> None:
    source, tunnel = random.Random(program), TARGETS[program]
    role = program.split(maxsplit=1)[0]
    seen: Counter[str] = Counter()
    good = seeds(program)
    streams = [mutations(source, frame, list(range(12, len(frame)))) for frame in good]
    for number in range(COUNT // 4):
        frame = next(streams[number % len(streams)])
        expected = oracle.fate(frame, tunnel, ENDPOINT, {EPIC, NODE})
        before = host.state(role)
        ran = host.run(program, frame)
        after = host.state(role)
        if ran.verdict == SHOT:
            actual = oracle.DROPPED
        else:
            actual = oracle.ACCEPTED if (ran.packet, before[:2]) != (frame, after[:2]) else oracle.NOT_OURS
        if actual == oracle.DROPPED and after.drops["control_replayed"] > before.drops["control_replayed"]:
            actual = oracle.ACCEPTED
        assert actual == expected, frame.hex()
        seen[actual] += 1
    assert set(seen) == {oracle.ACCEPTED, oracle.DROPPED, oracle.NOT_OURS}


@pytest.mark.parametrize("program", TARGETS)
def test_nothing_that_the_tag_binds_can_be_changed(host: Host, program: str) -> None:
    source, role = random.Random(program), program.split(maxsplit=1)[0]
    good = seeds(program)
    streams = [mutations(source, frame, BOUND) for frame in good]
    before = host.state(role)
    verdicts: Counter[int] = Counter()
    for number in range(COUNT // 4):
        kind = number % len(streams)
        frame = next(streams[kind])
        if frame[42:82] != good[kind][42:82] or len(frame) < len(good[kind]):
            verdicts[host.run(program, frame).verdict] += 1
    assert set(verdicts) == {SHOT}
    assert host.state(role)[:2] == before[:2]
