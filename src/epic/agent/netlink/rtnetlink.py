# SPDX-License-Identifier: Apache-2.0
"""Route netlink as bytes: nodes have thousands of routes, which pyroute2 takes ten times as long to set."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH = 28, 29
NEWRULE, DELRULE, GETRULE = 32, 33, 34
DELQDISC, DELTFILTER, GETTFILTER = 37, 45, 46

REPLACE = 0x100 | 0x400
"""Create, or replace what there is."""
CREATE = 0x200 | 0x400
"""Create; there must be none."""

ROUTE = struct.Struct("=BBBBBBBBI")
"""family, dst_len, src_len, tos, table, protocol, scope, type, flags."""
LINK = struct.Struct("=BxHiII")
"""family, device type, index, flags, change."""
ADDRESS = struct.Struct("=BBBBI")
"""family, prefix length, flags, scope, index."""
NEIGHBOUR = struct.Struct("=BxxxiHBB")
"""family, index, state, flags, type."""
FILTER = struct.Struct("=BxxxiIII")
"""family, index, handle, parent, info (priority and protocol)."""

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_TYPE_MASK = 0x3FFF
_TABLE = 15
_RECEIVE_BYTES = 1 << 18
_ROOM_BYTES = 1 << 22
_SO_RCVBUFFORCE = 33
_SOL_NETLINK, _GET_STRICT_CHECK = 270, 12
# Requests under way at once; their answers fit into the socket's buffer.
_WINDOW = 64


class Message(NamedTuple):
    """A message without its header."""

    kind: int
    sender: int
    body: bytes


class Request(NamedTuple):
    """What the kernel is asked for."""

    kind: int
    flags: int
    body: bytes


def attribute(number: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(4 + len(value), number) + value + bytes(-len(value) % 4)


def attributes(body: bytes, start: int) -> dict[int, bytes]:
    """The attributes that begin at `start`; of one that comes twice the last."""
    found: dict[int, bytes] = {}
    while start + 4 <= len(body):
        length, number = _ATTRIBUTE.unpack_from(body, start)
        if length < 4:
            break
        found[number & _TYPE_MASK] = body[start + 4 : start + length]
        start += length + 3 & ~3
    return found


def table(body: bytes, values: dict[int, bytes]) -> int:
    """The table of a route or a rule, from its body and attributes."""
    return int.from_bytes(values.get(_TABLE, body[4:5]), "little")


def messages(data: bytes) -> Iterator[tuple[int, Message]]:
    """The messages of one datagram, each with its sequence number."""
    start = 0
    while start + _HEADER.size <= len(data):
        length, kind, _, sequence, sender = _HEADER.unpack_from(data, start)
        if length < _HEADER.size:
            break
        yield sequence, Message(kind, sender, data[start + _HEADER.size : start + length])
        start += length + 3 & ~3


class Channel:
    """A netlink socket in the network namespace of the thread. Calls block and raise OSError."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        # Without it the kernel ignores what a dump is to be restricted to.
        self._socket.setsockopt(_SOL_NETLINK, _GET_STRICT_CHECK, 1)
        self._socket.settimeout(10)
        self._sequence = 0

    @property
    def port(self) -> int:
        """What messages that we caused name as their sender."""
        number: int = self._socket.getsockname()[0]
        return number

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """All objects of a kind."""
        sequence = self._send(Request(kind, _DUMP, body))
        while True:
            for number, message in messages(self._socket.recv(_RECEIVE_BYTES)):
                if number != sequence:
                    continue
                if message.kind == _DONE:
                    return
                if message.kind == _ERROR:
                    raise _error(message.body)
                yield message.body

    def get(self, kind: int, body: bytes) -> bytes:
        """One object."""
        sequence = self._send(Request(kind, 0, body))
        while True:
            for number, message in messages(self._socket.recv(_RECEIVE_BYTES)):
                if number == sequence and message.kind == _ERROR:
                    raise _error(message.body)
                if number == sequence:
                    return message.body

    def change(self, request: Request) -> None:
        """One change."""
        (error,) = self.change_all([request])
        if error is not None:
            raise error

    def change_all(self, requests: Sequence[Request]) -> list[OSError | None]:
        """Many changes; what became of each."""
        results: list[OSError | None] = []
        for start in range(0, len(requests), _WINDOW):
            results += self._window(requests[start : start + _WINDOW])
        return results

    def _window(self, requests: Iterable[Request]) -> list[OSError | None]:
        results: dict[int, OSError | None] = {
            self._send(request, _ACK): OSError(errno.EIO, "no answer") for request in requests
        }
        missing = len(results)
        while missing:
            for number, message in messages(self._socket.recv(_RECEIVE_BYTES)):
                if number in results and message.kind == _ERROR:
                    error = _error(message.body)
                    results[number] = error if error.errno else None
                    missing -= 1
        return list(results.values())

    def _send(self, request: Request, flags: int = 0) -> int:
        self._sequence += 1
        length = _HEADER.size + len(request.body)
        header = _HEADER.pack(length, request.kind, request.flags | flags | _REQUEST, self._sequence, 0)
        self._socket.send(header + request.body)
        return self._sequence


def listen(groups: int) -> socket.socket:
    """A socket that hears of changes and does not block."""
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    channel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM_BYTES)
    channel.bind((0, groups))
    return channel


def _error(body: bytes) -> OSError:
    (number,) = struct.unpack_from("=i", body)
    return OSError(-number, os.strerror(-number))
