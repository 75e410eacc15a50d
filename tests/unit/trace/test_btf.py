# SPDX-License-Identifier: Apache-2.0
"""Reading the kernel's type information, from some written by hand."""

from __future__ import annotations

import struct

import pytest

from epic.errors import Unavailable
from epic.trace import btf

_INT, _STRUCT, _UNION, _ENUM, _CONST = 1, 4, 5, 6, 10


class _Writer:
    def __init__(self) -> None:
        self.strings, self.types = b"\0", b""

    def name(self, text: str) -> int:
        at = len(self.strings) if text else 0
        self.strings += text.encode() + b"\0" if text else b""
        return at

    def add(self, kind: int, name: str, size: int, *rest: tuple[object, ...], flag: int = 0) -> None:
        info = flag << 31 | kind << 24 | (0 if kind in (_INT, _CONST) else len(rest))
        self.types += struct.pack("=III", self.name(name), info, size)
        for values in rest:
            packed = [self.name(value) if isinstance(value, str) else value for value in values]
            self.types += struct.pack(f"={len(packed)}i", *packed)

    def written(self, magic: int = 0xEB9F) -> bytes:
        lengths = (0, len(self.types), len(self.types), len(self.strings))
        return struct.pack("=HBBIIIII", magic, 1, 0, 24, *lengths) + self.types + self.strings


@pytest.fixture
def data() -> bytes:
    writer = _Writer()
    writer.add(_INT, "u32", 4, (32,))  # 1
    writer.add(_STRUCT, "inner", 8, ("first", 1, 0), ("second", 1, 32))  # 2
    writer.add(_CONST, "", 2)  # 3
    writer.add(_UNION, "", 8, ("whole", 3, 0))  # 4
    writer.add(_STRUCT, "outer", 16, ("before", 1, 0), ("", 4, 64))  # 5
    writer.add(_STRUCT, "flags", 4, ("low", 1, 3 << 24 | 0), ("high", 1, 5 << 24 | 3), flag=1)  # 6
    writer.add(_ENUM, "colour", 4, ("RED", 0), ("BLUE", 7))  # 7
    return writer.written()


def test_members_are_found_in_what_they_are_embedded_in(data: bytes) -> None:
    types = btf.Btf(data)
    assert types.offset("outer", "before") == 0
    assert types.offset("outer", "whole.second") == 12
    assert types.offset_bits("flags", "high") == 3


def test_enumerators_have_names(data: bytes) -> None:
    assert btf.Btf(data).enumerators("colour") == {0: "RED", 7: "BLUE"}


@pytest.mark.parametrize(
    ("type_name", "path", "message"),
    [("outer", "after", "struct outer has no member after"), ("sk_buff", "len", "has no sk_buff")],
)
def test_what_is_missing_is_said(data: bytes, type_name: str, path: str, message: str) -> None:
    with pytest.raises(Unavailable, match=message):
        btf.Btf(data).offset(type_name, path)


def test_another_byte_order_is_refused() -> None:
    with pytest.raises(Unavailable, match="byte order"):
        btf.Btf(_Writer().written(0x9FEB))
