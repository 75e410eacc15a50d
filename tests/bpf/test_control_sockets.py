# SPDX-License-Identifier: Apache-2.0
"""The sockets of an EPIC node: answers of siblings' nodes have room of their own, whatever hellos come."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from namespaces import Namespace

from epic.agent.gateway.responder import Responder
from epic.agent.tunnel.sockets import control_socket
from epic.bpf.dataplane import Address
from epic.bpf.packets.probe import Probe, encode
from epic.errors import Unavailable

pytestmark = pytest.mark.root

OVER = pytest.mark.parametrize("own", [ip_address("127.0.0.1"), ip_address("::1")], ids=["IPv4", "IPv6"])
FLOOD = 20_000
PUBLIC = ip_address("192.0.2.1")


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace(ipv6=True)
    with made:
        yield made
    made.close()


class Heard:
    """Probes that came back."""

    def __init__(self, wanted: int) -> None:
        self.probes: list[bytes] = []
        self.complete = asyncio.Event()
        self._wanted = wanted

    def take(self, payload: bytes, _: Address) -> None:
        self.probes.append(payload)
        if len(self.probes) == self._wanted:
            self.complete.set()


def responder(heard: Heard) -> Responder:
    return Responder({}, lambda _: 0, heard.take)


def probe(own: Address, nonce: int) -> bytes:
    return encode(Probe(1, 2, PUBLIC, nonce), bytes(16), own, own)


@OVER
@pytest.mark.usefixtures("namespace")
def test_a_flood_of_hellos_takes_no_room_from_probes(own: Address) -> None:
    heard = Heard(1)

    async def run() -> None:
        opened = responder(heard)
        opened.open()
        family = socket.AF_INET if own.version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as tenant:
            tenant.connect((str(own), 6080))
            for _ in range(FLOOD):
                tenant.send(b"\x20\x80" + bytes(46))
        opened.send(probe(own, 77), own, own)
        async with asyncio.timeout(20):
            await heard.complete.wait()
        opened.close()

    asyncio.run(run())
    assert heard.probes == [probe(own, 77)]


@OVER
@pytest.mark.usefixtures("namespace")
def test_many_nodes_may_answer_at_once(own: Address) -> None:
    heard = Heard(1000)

    async def run() -> None:
        opened = responder(heard)
        opened.open()
        for nonce in range(1000):
            opened.send(probe(own, nonce), own, own)
        async with asyncio.timeout(20):
            await heard.complete.wait()
        opened.close()

    asyncio.run(run())
    assert heard.probes == [probe(own, nonce) for nonce in range(1000)]


@pytest.mark.usefixtures("namespace")
def test_a_port_that_another_agent_has_cannot_be_had() -> None:
    async def run() -> None:
        first, second = responder(Heard(0)), responder(Heard(0))
        first.open()
        with pytest.raises(Unavailable, match="UDP port 6080 cannot be had"):
            second.open()
        with pytest.raises(Unavailable):
            control_socket(socket.AF_INET6)
        first.close()
        second.open()
        second.close()

    asyncio.run(run())
