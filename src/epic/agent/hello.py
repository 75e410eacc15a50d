"""Answering the hellos of workload nodes, so that both ends know that the tunnel lives."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address

from epic.agent.control_packets import answer
from epic.agent.desired import Tunnel
from epic.errors import Unavailable
from epic.model.resources import GUE_PORT

_IP_FREEBIND = 15  # linux/in.h; the socket module does not have it


class Responder(asyncio.DatagramProtocol):
    """Answers on UDP 6080. The programs on the interface have verified what arrives here; we do it again."""

    def __init__(self, tunnels: Callable[[], Mapping[int, Tunnel]]) -> None:
        self._tunnels = tunnels
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """See asyncio."""
        ack = answer(data, self._tunnels(), time.time_ns())
        if ack is not None and self._transport is not None:
            self._transport.sendto(ack, addr)


def control_socket(address: IPv4Address) -> socket.socket:
    """A socket for control packets from `address`, port 6080; the address may come up later."""
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    channel.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
    try:
        channel.bind((str(address), GUE_PORT))
    except OSError as error:
        channel.close()
        raise Unavailable(
            f"UDP port {GUE_PORT} of {address} cannot be had ({error.strerror}); tunnels need it alone"
        ) from error
    return channel


async def respond(address: IPv4Address, tunnels: Callable[[], Mapping[int, Tunnel]]) -> asyncio.BaseTransport:
    """Answer hellos until the transport is closed."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Responder(tunnels), sock=control_socket(address)
    )
    return transport
