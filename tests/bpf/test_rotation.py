# SPDX-License-Identifier: Apache-2.0
"""Keys change while packets are on their way: what is signed or verified afterwards is right at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from frames import ALL, ETHER, KEY, OLD_KEY, WRONG_KEY, Families, gue, outer, wrapped
from host import GATEWAY, INSTANCE, Host, gateway_tunnel
from scapy.layers.inet import TCP, UDP
from testrun import REDIRECT, SHOT

pytestmark = pytest.mark.root

ROUNDS = 10000
HAMMER = Path(__file__).with_name("hammer.py")
KEYS = {0: OLD_KEY, 1: KEY}
INNER = pytest.mark.parametrize("families", ALL[:2], ids=str)


@contextmanager
def hammering(pin: Path, ifindex: int, frames: list[bytes]) -> Iterator[None]:
    """These frames again and again through the program, on another processor."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, HAMMER, str(pin), str(ifindex)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as child:
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.writelines(f"{frame.hex()}\n" for frame in frames)
            child.stdin.close()
            assert child.stdout.readline() == "running\n"
            yield
        finally:
            child.kill()


@INNER
def test_after_a_switch_the_new_key_signs(host: Host, families: Families) -> None:
    inners = [families.request() / layer / b"x" for layer in (TCP(), UDP())]
    sent = [bytes(ETHER / inner) for inner in inners]
    signed = {
        active: [bytes(wrapped(families, inner, key=key)) for inner in inners] for active, key in KEYS.items()
    }
    run = host.program(INSTANCE).run
    with hammering(host.pin(INSTANCE), host.ifindex, sent):
        for number in range(ROUNDS):
            active = number % 2
            host.gateway.set_tunnel(gateway_tunnel(active=active))
            for frame, expected in zip(sent, signed[active], strict=True):
                assert run(frame) == (REDIRECT, expected), number


@INNER
def test_after_a_key_was_taken_away_it_verifies_no_more(host: Host, families: Families) -> None:
    inners = [families.reply() / layer / b"x" for layer in (TCP(), UDP())]
    frames = {
        key: [bytes(outer(families.nat, families.epic) / gue(inner, key) / inner) for inner in inners]
        for key in (OLD_KEY, KEY)
    }
    run = host.program(GATEWAY).run
    with hammering(host.pin(GATEWAY), host.ifindex, [*frames[KEY], *frames[OLD_KEY]]):
        for number in range(ROUNDS):
            active = number % 2
            keys = (OLD_KEY, None) if active == 0 else (None, KEY)
            host.gateway.set_tunnel(gateway_tunnel(keys=keys, active=active))
            for frame in frames[KEYS[active]]:
                assert run(frame).verdict == REDIRECT, number
            for frame in frames[KEYS[1 - active]]:
                assert run(frame).verdict == SHOT, number


@INNER
def test_a_key_may_change_in_its_slot(host: Host, families: Families) -> None:
    """As for an agent that was away during a rotation."""
    inner = families.request() / UDP() / b"x"
    for key in (OLD_KEY, WRONG_KEY, KEY, OLD_KEY):
        host.gateway.set_tunnel(gateway_tunnel(keys=(key, None), active=0))
        for _ in range(2):
            assert host.run(INSTANCE, ETHER / inner).packet == bytes(wrapped(families, inner, key=key))


@INNER
def test_a_service_number_may_change(host: Host, families: Families) -> None:
    inner = families.request() / UDP() / b"x"
    first = host.run(INSTANCE, ETHER / inner).packet
    host.gateway.set_tunnel(gateway_tunnel(service=77))
    second = host.run(INSTANCE, ETHER / inner).packet
    host.gateway.set_tunnel(gateway_tunnel())
    assert host.run(INSTANCE, ETHER / inner).packet == first
    start = families.outer_end + 8
    assert second[start : start + 4] == (77).to_bytes(4, "big")
    assert second[start + 4 : start + 12] != first[start + 4 : start + 12]
