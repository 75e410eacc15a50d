# SPDX-License-Identifier: Apache-2.0
"""What the running kernel calls things and where they lie: a reader of its type information (BTF)."""

from __future__ import annotations

import struct
from pathlib import Path

from epic.errors import Unavailable

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")
_MEMBER = struct.Struct("=III")
_ENUMERATOR = struct.Struct("=Ii")
_MAGIC = 0xEB9F
_STRUCT, _UNION, _ENUM = 4, 5, 6
_MODIFIERS = (8, 9, 10, 11, 18)  # typedef, volatile, const, restrict, type tag
# Bytes behind a type: a fixed part, and a part for each of its elements.
_FIXED = {1: 4, 3: 12, 14: 4, 17: 4}
_EACH = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


class Btf:
    """The types of one kernel."""

    def __init__(self, data: bytes) -> None:
        magic, _, _, length, types, types_length, strings, _ = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise Unavailable("the kernel's type information (BTF) is not in this machine's byte order")
        self._data, self._strings = data, length + strings
        self._places: list[int] = [0]
        self._named: dict[tuple[int, int], int] = {}
        position, end = length + types, length + types + types_length
        while position < end:
            name, info, _ = _TYPE.unpack_from(data, position)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            if kind in (_STRUCT, _ENUM):
                self._named.setdefault((kind, name), len(self._places))
            self._places.append(position)
            position += _TYPE.size + _FIXED.get(kind, 0) + _EACH.get(kind, 0) * count

    def offset_bits(self, type_name: str, path: str) -> int:
        """Where in a struct a member is; `path` may go into embedded structs ("a.b")."""
        current, total = self._find(_STRUCT, type_name), 0
        for name in path.split("."):
            found = self._member(self._plain(current), name)
            if found is None:
                raise Unavailable(f"this kernel's struct {type_name} has no member {path}")
            total, current = total + found[0], found[1]
        return total

    def offset(self, type_name: str, path: str) -> int:
        """The same in bytes."""
        return self.offset_bits(type_name, path) // 8

    def enumerators(self, name: str) -> dict[int, str]:
        """Names of an enum's numbers."""
        place = self._places[self._find(_ENUM, name)]
        count = _TYPE.unpack_from(self._data, place)[1] & 0xFFFF
        begin = place + _TYPE.size
        pairs = _ENUMERATOR.iter_unpack(self._data[begin : begin + _ENUMERATOR.size * count])
        return {number: self._string(text) for text, number in pairs}

    def _find(self, kind: int, name: str) -> int:
        for (known, text), number in self._named.items():
            if known == kind and self._string(text) == name:
                return number
        raise Unavailable(f"this kernel's type information has no {name}")

    def _string(self, at: int) -> str:
        begin = self._strings + at
        return self._data[begin : self._data.index(b"\0", begin)].decode("ascii", "replace")

    def _plain(self, number: int) -> int:
        while True:
            _, info, referred = _TYPE.unpack_from(self._data, self._places[number])
            if info >> 24 & 0x1F not in _MODIFIERS:
                return number
            number = referred

    def _member(self, number: int, wanted: str) -> tuple[int, int] | None:
        """Bit offset and type; members of nameless structs and unions count as the outer one's."""
        place = self._places[number]
        _, info, _ = _TYPE.unpack_from(self._data, place)
        if info >> 24 & 0x1F not in (_STRUCT, _UNION):
            return None
        for index in range(info & 0xFFFF):
            name, type_, offset = _MEMBER.unpack_from(self._data, place + _TYPE.size + index * _MEMBER.size)
            bits = offset & 0xFFFFFF if info >> 31 else offset
            text = self._string(name)
            if text == wanted:
                return bits, type_
            if not text and (inner := self._member(self._plain(type_), wanted)) is not None:
                return bits + inner[0], inner[1]
        return None


def kernel() -> Btf:
    """The running kernel's."""
    try:
        return Btf(VMLINUX.read_bytes())
    except OSError as error:
        raise Unavailable(
            f"cannot read {VMLINUX}: {error.strerror}; epic-trace needs a kernel with CONFIG_DEBUG_INFO_BTF"
        ) from error
