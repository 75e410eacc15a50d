# SPDX-License-Identifier: Apache-2.0
"""Addresses replaced in packets, as bytes: the rules of docs/transport.md once more, for fuzzing.

Offsets are those of frames: the IP header begins at 14. What lies behind the IP packet may be looked at, as
the programs bound their reads by the frame.
"""

from __future__ import annotations

ICMP, TCP, UDP, FRAGMENT, ICMP6 = 1, 6, 17, 44, 58
SOURCE, DESTINATION = 0, 1

_CHECKSUM = {TCP: 16, UDP: 6, ICMP6: 2}
_PLACE = {4: (12, 16), 6: (8, 24)}
_ERRORS4 = (3, 11, 12)
_EXTENSIONS = (0, 43, 60)


CONGESTION = 3
"""The mark of RFC 3168."""


class Impossible(Exception):
    """A checksum cannot be kept right: it is cut off, or behind extension headers."""


def adjusted(checksum: int, before: bytes, after: bytes) -> int:
    """RFC 1624, for a field of any value."""
    total = (checksum ^ 0xFFFF) + int.from_bytes(after, "big")
    total += ((1 << len(before) * 8) - 1) ^ int.from_bytes(before, "big")
    while total >> 16:
        total = sum(total >> shift & 0xFFFF for shift in range(0, total.bit_length(), 16))
    return total ^ 0xFFFF


def adjust(frame: bytearray, place: int, before: bytes, after: bytes) -> None:
    """The checksum at `place`."""
    if place + 2 > len(frame):
        raise Impossible
    value = adjusted(int.from_bytes(frame[place : place + 2], "big"), before, after)
    frame[place : place + 2] = value.to_bytes(2, "big")


def transport(frame: bytes | bytearray, version: int) -> tuple[int, int, bool] | None:
    """Offset and protocol of the transport header, and whether this is no fragment; None: a later one."""
    if version == 4:
        fragment = int.from_bytes(frame[20:22], "big")
        if fragment & 0x1FFF:
            return None
        return 14 + (frame[14] & 15) * 4, frame[23], not fragment & 0x2000
    if frame[20] != FRAGMENT:
        return 54, frame[20], True
    if len(frame) < 58 or int.from_bytes(frame[56:58], "big") & 0xFFF8:
        return None
    return 62, frame[54], False


def quoted(frame: bytes | bytearray, version: int, found: tuple[int, int, bool]) -> int:
    """Offset of the IP header that an ICMP error quotes; 0: this is none."""
    offset, protocol, whole = found
    if protocol != (ICMP if version == 4 else ICMP6) or not whole or len(frame) <= offset:
        return 0
    error = frame[offset] in _ERRORS4 if version == 4 else frame[offset] < 128
    return offset + 8 if error else 0


def quoted_ends(frame: bytes, version: int) -> tuple[bytes, bytes] | None:
    """Source and destination of the packet that an ICMP error quotes; None: it has no sane header."""
    found = transport(frame, version)
    start = quoted(frame, version, found) if found else 0
    header = frame[start : start + (20 if version == 4 else 40)]
    if not start or len(header) < (20 if version == 4 else 40) or header[0] >> 4 != version:
        return None
    words = header[0] & 15
    if version == 4 and (words < 5 or int.from_bytes(header[2:4], "big") < words * 4):
        return None
    return (header[12:16], header[16:20]) if version == 4 else (header[8:24], header[24:40])


def replace(frame: bytearray, version: int, field: int, after: bytes) -> None:
    """One address of the packet, and the same one on the other side of a packet that it quotes."""
    place = 14 + _PLACE[version][field]
    before = bytes(frame[place : place + len(after)])
    found = transport(frame, version)
    if found:
        if version == 6 and found[1] in _EXTENSIONS:
            raise Impossible
        _pseudo(frame, version, found, before, after)
        start = quoted(frame, version, found)
        if start:
            _in_quoted(frame, version, (start, found[0], field), before, after)
    if version == 4:
        adjust(frame, 24, before, after)
    frame[place : place + len(after)] = after


def _pseudo(
    frame: bytearray, version: int, found: tuple[int, int, bool], before: bytes, after: bytes
) -> None:
    offset, protocol, _ = found
    if protocol not in _CHECKSUM or (protocol == ICMP6 and version == 4):
        return
    place = offset + _CHECKSUM[protocol]
    if protocol == UDP and place + 2 <= len(frame) and frame[place : place + 2] == b"\0\0":
        return
    adjust(frame, place, before, after)
    if protocol == UDP and frame[place : place + 2] == b"\0\0":
        frame[place : place + 2] = b"\xff\xff"


def _in_quoted(
    frame: bytearray, version: int, where: tuple[int, int, int], before: bytes, after: bytes
) -> None:
    start, icmp, field = where
    place = start + _PLACE[version][1 - field]
    if frame[place : place + len(before)] != before:
        return
    adjust(frame, start + 10 if version == 4 else icmp + 2, before, after)
    frame[place : place + len(after)] = after


def mark(taken: bytearray, version: int) -> bool:
    """Congestion on an inner packet (RFC 6040); false: it cannot carry it."""
    if version == 4:
        if not taken[15] & 3:
            return False
        added = CONGESTION - (taken[15] & 3)
        taken[15] |= CONGESTION
        if added:
            # As the kernel does it, which keeps a sum of 0xffff.
            total = int.from_bytes(taken[24:26], "big") + (0xFFFF ^ added)
            taken[24:26] = ((total & 0xFFFF) + (total >> 16)).to_bytes(2, "big")
        return True
    if not taken[15] & 0x30:
        return False
    taken[15] |= CONGESTION << 4
    return True
