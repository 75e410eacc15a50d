# SPDX-License-Identifier: Apache-2.0
"""Somebody else's filters: they count or tag the packets that reach them and decide nothing."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

from namespaces import Namespace

from epic.bpf.programs import syscalls

_MAP_CREATE, _PROG_LOAD, _OBJ_PIN = 0, 5, 6
_ARRAY, _SCHED_CLS = 2, 3
_LOOKUP, _VLAN_PUSH = 1, 18
_KEY, _VALUE = bytes(4), 8


def _instruction(code: int, registers: int, offset: int, immediate: int) -> bytes:
    return struct.pack("=BBhi", code, registers, offset, immediate)


def _counting(map_fd: int) -> bytes:
    return b"".join(
        (
            _instruction(0x62, 0x0A, -4, 0),  # *(u32 *)(r10 - 4) = 0
            _instruction(0xBF, 0xA2, 0, 0),  # r2 = r10
            _instruction(0x07, 0x02, 0, -4),  # r2 += -4
            _instruction(0x18, 0x11, 0, map_fd),  # r1 = the map
            _instruction(0x00, 0x00, 0, 0),
            _instruction(0x85, 0x00, 0, _LOOKUP),
            _instruction(0x15, 0x00, 2, 0),  # if r0 == 0: skip
            _instruction(0xB7, 0x01, 0, 1),  # r1 = 1
            _instruction(0xDB, 0x10, 0, 0),  # *(u64 *)r0 += r1, atomically
            _instruction(0xB7, 0x00, 0, -1),  # return TC_ACT_UNSPEC
            _instruction(0x95, 0x00, 0, 0),
        )
    )


class Counter:
    """A filter on an interface's ingress."""

    def __init__(self, namespace: Namespace, interface: str, priority: int, pin: Path) -> None:
        self._map = syscalls.bpf(_MAP_CREATE, syscalls.attributes("=IIII", _ARRAY, 4, _VALUE, 1))
        _attach(_counting(self._map), namespace, f"{interface} ingress prio {priority}", pin)

    def packets(self) -> int:
        """How many have reached it."""
        (count,) = struct.unpack("=Q", syscalls.lookup(self._map, _KEY, _VALUE) or bytes(8))
        return int(count)


def tag(namespace: Namespace, interface: str, pin: Path) -> None:
    """What an interface sends carries a VLAN tag, as if it were a VLAN's."""
    code = (
        _instruction(0xB7, 0x02, 0, 0x0081),  # r2 = 802.1Q, in network order
        _instruction(0xB7, 0x03, 0, 5),  # r3 = the VLAN
        _instruction(0x85, 0x00, 0, _VLAN_PUSH),
        _instruction(0xB7, 0x00, 0, -1),
        _instruction(0x95, 0x00, 0, 0),
    )
    _attach(b"".join(code), namespace, f"{interface} egress prio 1", pin)


def _attach(code: bytes, namespace: Namespace, where: str, pin: Path) -> None:
    held = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")
    load = syscalls.attributes(
        "=IIQQ", _SCHED_CLS, len(code) // 8, syscalls.address(held), syscalls.address(licence)
    )
    program = syscalls.bpf(_PROG_LOAD, load)
    path = ctypes.create_string_buffer(bytes(pin))
    syscalls.bpf(_OBJ_PIN, syscalls.attributes("=QI", syscalls.address(path), program))
    namespace.run(f"tc filter add dev {where} bpf direct-action object-pinned {pin}")
    pin.unlink()
