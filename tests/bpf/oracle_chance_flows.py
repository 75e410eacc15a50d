# SPDX-License-Identifier: Apache-2.0
"""Second chance, the second implementation: which connection a packet shows, and its numbers."""

from __future__ import annotations

import struct
from typing import NamedTuple

TCP, ICMP, ICMPV6, FRAGMENT = 6, 1, 58, 44
EXTENSIONS = (0, 43, 60)
_SYN, _ACK = 2, 16


class Flow(NamedTuple):
    """Of a connection, addresses packed."""

    client: bytes
    public: bytes
    client_port: int
    public_port: int


class Packet(NamedTuple):
    """A TCP packet, or an ICMP error about one."""

    flow: Flow
    protocol: int
    sequence: int
    acknowledged: int | None
    begins: bool
    error: bool
    shown: int
    """Bytes from the IP header on that show the flow."""


def read(data: bytes, version: int) -> Packet | str | None:
    """An IP packet; a counter's name if it is left alone by name, None if it has no socket of its own."""
    if version == 4:
        start, protocol, addresses = (data[0] & 15) * 4, data[9], data[12:20]
        fragment, icmp = bool(int.from_bytes(data[6:8], "big") & 0x3FFF), ICMP
    else:
        start, protocol, addresses = 40, data[6], data[8:40]
        fragment, icmp = protocol == FRAGMENT, ICMPV6
        if protocol in EXTENSIONS:
            return "unreadable"
    if fragment:
        return "fragments"
    middle = len(addresses) // 2
    client, public = addresses[:middle], addresses[middle:]
    if protocol == icmp:
        return _read_error(data, version, start, public)
    if len(data) < start + 20:
        return None
    source, destination, sequence, acknowledged = struct.unpack_from("!HHII", data, start)
    flags = data[start + 13]
    flow = Flow(client, public, source, destination)
    number = acknowledged if flags & _ACK else None
    return Packet(flow, protocol, sequence, number, bool(flags & _SYN), False, start + 20)


def _read_error(data: bytes, version: int, start: int, public: bytes) -> Packet | None:
    if len(data) < start + 8 + (20 if version == 4 else 40):
        return None
    kind, quoted = data[start], data[start + 8 :]
    if version == 4:
        words, total = quoted[0] & 15, int.from_bytes(quoted[2:4], "big")
        sane = quoted[0] >> 4 == 4 and words >= 5 and total >= words * 4
        good = sane and quoted[9] == TCP and not int.from_bytes(quoted[6:8], "big") & 0x1FFF
        header, source, client, error = words * 4, quoted[12:16], quoted[16:20], kind in (3, 11, 12)
    else:
        good, header, source, client = (
            quoted[0] >> 4 == 6 and quoted[6] == TCP,
            40,
            quoted[8:24],
            quoted[24:40],
        )
        error = kind < 128
    if not error or not good or source != public or len(quoted) < header + 8:
        return None
    near, far, sequence = struct.unpack_from("!HHI", quoted, header)
    protocol = ICMP if version == 4 else ICMPV6
    return Packet(Flow(client, public, far, near), protocol, sequence, None, False, True, start + header + 16)
