# SPDX-License-Identifier: Apache-2.0
"""The sockets of control packets."""

from __future__ import annotations

import ctypes
import socket
import struct
from contextlib import suppress
from ipaddress import IPv4Address

from epic.bpf.dataplane import Address
from epic.bpf.packets.probe import TYPE
from epic.errors import Unavailable
from epic.model.values.naming import GUE_PORT

_IP_FREEBIND, _IPV6_FREEBIND = 15, 78  # linux/in.h; the socket module does not have them
_SO_RCVBUFFORCE, _SO_ATTACH_REUSEPORT_CBPF = 33, 51  # asm-generic/socket.h, likewise
_PROBE_BYTES = 4 << 20
"""Room for the answers of a thousand nodes that come at once, each in a page."""

_LOAD_BYTE, _JUMP_IF_EQUAL, _RETURN = 0x30, 0x15, 0x06  # linux/bpf_common.h
_INSTRUCTION = struct.Struct("=HBBI")
_PROGRAM = struct.Struct("HP")
_BY_TYPE = b"".join(
    _INSTRUCTION.pack(*instruction)
    for instruction in (
        (_LOAD_BYTE, 0, 0, 1),
        (_JUMP_IF_EQUAL, 0, 1, TYPE),
        (_RETURN, 0, 0, 1),
        (_RETURN, 0, 0, 0),
    )
)
"""Which socket of a port gets a datagram, by its type: the second one gets probes."""


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
    _bind(channel, address, GUE_PORT + lane)
    return channel


def probe_socket(beside: socket.socket) -> socket.socket:
    """A second socket at the port of any address that `beside` has: from now on it gets the probes.

    So nobody who says many hellos makes answers of nodes that live get lost. A port that somebody else has
    cannot be shared: `beside` was there alone.
    """
    beside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    channel = socket.socket(beside.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    with suppress(PermissionError):
        channel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _PROBE_BYTES)
    _bind(channel, None, GUE_PORT)
    code = ctypes.create_string_buffer(_BY_TYPE, len(_BY_TYPE))
    program = _PROGRAM.pack(len(_BY_TYPE) // _INSTRUCTION.size, ctypes.addressof(code))
    channel.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)
    return channel


def _bind(channel: socket.socket, address: Address | None, port: int) -> None:
    """To `address` (which may come up later) or any of ours; Unavailable and closed when it cannot be had."""
    try:
        if channel.family == socket.AF_INET6:
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


def family_of(address: Address) -> socket.AddressFamily:
    """The sockets' word for it."""
    return socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
