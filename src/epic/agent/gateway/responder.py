# SPDX-License-Identifier: Apache-2.0
"""Answering the hellos of workload nodes, so that both ends know that the tunnel lives."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import ip_address

from epic.agent.gateway.desired import Tunnel
from epic.agent.tunnel.packets import answer
from epic.agent.tunnel.sockets import control_socket, family_of, probe_socket
from epic.bpf.dataplane import Address
from epic.bpf.packets.probe import is_probe
from epic.model.values.naming import GUE_PORT

log = logging.getLogger(__name__)

_IP_PKTINFO = 8  # linux/in.h; the socket module does not have it
_PKTINFO = struct.Struct("=I4s4s")
_PKTINFO6 = struct.Struct("=16sI")
_BYTES = 2048
# So many datagrams are taken before others get a turn.
_TURN = 64

Ancillary = tuple[int, int, bytes]


class Responder:
    """Answers on UDP 6080, from the address that a hello came to.

    The programs on the interface have verified what arrives here; we do it again. `probed` is called with
    probes of ours that came back, which have a socket of their own.
    """

    def __init__(
        self,
        tunnels: Mapping[int, Tunnel],
        generation: Callable[[int], int],
        probed: Callable[[bytes, Address], None],
    ) -> None:
        self._tunnels = tunnels
        self._generation = generation
        self._probed = probed
        self._sockets: list[socket.socket] = []
        self._probing: dict[int, socket.socket] = {}

    def open(self) -> None:
        """Answer from now on, in the running loop."""
        for family in (socket.AF_INET, socket.AF_INET6):
            channel = control_socket(family)
            if channel is None:
                continue
            self._probing[family] = probe_socket(channel)
            for taken in (channel, self._probing[family]):
                _ask_for_destinations(taken)
                self._sockets.append(taken)
                asyncio.get_running_loop().add_reader(taken, self._readable, taken)

    def close(self) -> None:
        """Answer no more."""
        for channel in self._sockets:
            asyncio.get_running_loop().remove_reader(channel)
            channel.close()
        self._sockets.clear()
        self._probing.clear()

    def send(self, payload: bytes, source: Address, destination: Address) -> None:
        """Send a probe; it may get lost, here already."""
        channel = self._probing.get(family_of(source))
        if channel is not None:
            with suppress(OSError):
                channel.sendmsg([payload], [_source(source)], 0, (str(destination), GUE_PORT))

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
            if is_probe(data):
                self._probed(data, source[0])
                continue
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


def _source(address: Address) -> Ancillary:
    """What makes a packet leave from this address."""
    if address.version == 4:
        return socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO.pack(0, address.packed, bytes(4))
    return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO6.pack(address.packed, 0)
