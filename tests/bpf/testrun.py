# SPDX-License-Identifier: Apache-2.0
"""BPF_PROG_TEST_RUN with buffers that are used again: a million packets are to be run."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from pathlib import Path
from typing import NamedTuple

from epic.bpf.programs import syscalls

PASS, SHOT, REDIRECT = -1, 2, 7
XDP_DROP, XDP_PASS = 1, 2

_NUMBER = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}[platform.machine()]
_COMMAND = 10
_REQUEST = struct.Struct("=IIIIQQIIIIQQIII")
_SK_BUFF, _XDP_MD = 192, 24
_IFINDEX, _GSO_SEGMENTS, _GSO_SIZE = 40, 164, 176
_ROOM = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)


class Ran(NamedTuple):
    """What a program did to a packet."""

    verdict: int
    packet: bytes


class TakenOut(NamedTuple):
    """What an XDP program did to a packet, and what it left in front of it."""

    verdict: int
    packet: bytes
    metadata: bytes


class Program:
    """One pinned program."""

    def __init__(self, pin: Path, ifindex: int = 1) -> None:
        self.fd = syscalls.open_pinned(pin)
        self._in, self._out = ctypes.create_string_buffer(_ROOM), ctypes.create_string_buffer(_ROOM)
        self._context = ctypes.create_string_buffer(_SK_BUFF)
        self.interface(ifindex)
        self._request = ctypes.create_string_buffer(128)
        self._template = [self.fd, 0, 0, _ROOM, ctypes.addressof(self._in), ctypes.addressof(self._out)]
        self._call = _libc.syscall

    def close(self) -> None:
        os.close(self.fd)

    def gso(self, size: int, segments: int) -> None:
        """Let the next packets be GSO packets of such segments."""
        struct.pack_into("=I", self._context, _GSO_SEGMENTS, segments)
        struct.pack_into("=I", self._context, _GSO_SIZE, size)

    def interface(self, ifindex: int) -> None:
        """Where the next packets come in."""
        struct.pack_into("=I", self._context, _IFINDEX, ifindex)

    def run(self, data: bytes) -> Ran:
        """One packet through the program."""
        context = ctypes.addressof(self._context)
        self._test(data, (len(self._context), 0, context, 0))
        verdict, size = struct.unpack_from("=i4xI", self._request, 4)
        return Ran(verdict, ctypes.string_at(self._out, size))

    def cost(self, data: bytes, times: int) -> int:
        """Nanoseconds that the program takes for the packet, which it must leave as it is."""
        self._test(data, (len(self._context), 0, ctypes.addressof(self._context), 0), times)
        return int(struct.unpack_from("=I", self._request, 36)[0])

    def take_out(self, data: bytes) -> TakenOut:
        """One packet through an XDP program."""
        struct.pack_into("=6I", self._context, 0, 0, len(data), 0, 0, 0, 0)
        context = ctypes.addressof(self._context)
        self._test(data, (_XDP_MD, _XDP_MD, context, context))
        verdict, size = struct.unpack_from("=i4xI", self._request, 4)
        start, _, meta = struct.unpack_from("=III", self._context)
        out = ctypes.string_at(self._out, size)
        return TakenOut(verdict, out[start - meta :], out[: start - meta])

    def _test(self, data: bytes, context: tuple[int, int, int, int], times: int = 1) -> None:
        size = len(data)
        ctypes.memmove(self._in, data, size)
        held = self._template
        held[2] = size
        _REQUEST.pack_into(self._request, 0, *held, times, 0, *context, 0, 0, 0)
        if self._call(_NUMBER, _COMMAND, self._request, 80) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), f"{size} bytes")
