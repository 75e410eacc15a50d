"""Answering the hellos of workload nodes, so that both ends know that the tunnel lives."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, ip_address

from epic.agent.control_packets import answer
from epic.agent.desired import Tunnel
from epic.bpf.dataplane import Address
from epic.errors import Unavailable
from epic.model.naming import GUE_PORT

log = logging.getLogger(__name__)

_IP_FREEBIND, _IP_PKTINFO, _IPV6_FREEBIND = 15, 8, 78  # linux/in.h; the socket module does not have them
_PKTINFO = struct.Struct("=I4s4s")
_PKTINFO6 = struct.Struct("=16sI")
_BYTES = 2048
# So many datagrams are taken before others get a turn.
_TURN = 64

Ancillary = tuple[int, int, bytes]


class Responder:
    """Answers on UDP 6080, from the address that a hello came to.

    The programs on the interface have verified what arrives here; we do it again.
    """

    def __init__(self, tunnels: Mapping[int, Tunnel], generation: Callable[[int], int]) -> None:
        self._tunnels = tunnels
        self._generation = generation
        self._sockets: list[socket.socket] = []

    def open(self) -> None:
        """Answer from now on, in the running loop."""
        for family in (socket.AF_INET, socket.AF_INET6):
            channel = control_socket(family)
            if channel is not None:
                _ask_for_destinations(channel)
                self._sockets.append(channel)
                asyncio.get_running_loop().add_reader(channel, self._readable, channel)

    def close(self) -> None:
        """Answer no more."""
        for channel in self._sockets:
            asyncio.get_running_loop().remove_reader(channel)
            channel.close()
        self._sockets.clear()

    def _readable(self, channel: socket.socket) -> None:
        for _ in range(_TURN):
            try:
                data, ancillary, _, sender = channel.recvmsg(_BYTES, socket.CMSG_SPACE(_PKTINFO6.size))
            except BlockingIOError:
                return
            except OSError as error:
                log.debug("hellos cannot be read: %s", error)
                return
            came_to = [found for item in ancillary if (found := _from(item)) is not None]
            source = (ip_address(sender[0].partition("%")[0]), int(sender[1]))
            ack = answer(data, self._tunnels, time.time_ns(), source, self._generation)
            if ack is not None:
                # The way back may be down; the next hello asks again.
                with suppress(OSError):
                    channel.sendmsg([ack], came_to, 0, sender)


def _ask_for_destinations(channel: socket.socket) -> None:
    if channel.family == socket.AF_INET:
        channel.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    else:
        channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)


def _from(item: Ancillary) -> Ancillary | None:
    """What makes an answer leave from the address that the hello came to, by any interface."""
    level, kind, data = item
    if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
        _, _, address = _PKTINFO.unpack_from(data)
        return level, kind, _PKTINFO.pack(0, address, bytes(4))
    if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
        address, index = _PKTINFO6.unpack_from(data)
        link_local = address[0] == 0xFE and address[1] & 0xC0 == 0x80
        return level, kind, _PKTINFO6.pack(address, index if link_local else 0)
    return None


def control_socket(
    family: socket.AddressFamily, address: Address | None = None, lane: int = 0
) -> socket.socket | None:
    """A socket for control packets of a lane, from `address` (which may come up later) or any of ours.

    None when the host does not speak the family at all.
    """
    try:
        channel = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    except OSError:
        return None
    port = GUE_PORT + lane
    try:
        if family == socket.AF_INET6:
            channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            channel.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            channel.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        channel.bind((str(address) if address is not None else "", port))
    except OSError as error:
        channel.close()
        where = f" of {address}" if address is not None else ""
        raise Unavailable(
            f"UDP port {port}{where} cannot be had ({error.strerror}); tunnels need it alone"
        ) from error
    return channel


def family_of(address: Address) -> socket.AddressFamily:
    """The sockets' word for it."""
    return socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
