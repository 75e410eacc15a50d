# SPDX-License-Identifier: Apache-2.0
"""Second chance, the second implementation: how a packet goes from sibling to sibling."""

from __future__ import annotations

import struct
from typing import NamedTuple

from oracle_chance_flows import Flow, Packet
from oracle_chance_state import Gateway

from epic.bpf.packets.siphash import siphash24

ASK, RETURN, GIVE, FOUND = range(4)
ANSWER = 8
ETHERTYPE = {4: b"\x08\0", 6: b"\x86\xdd"}
_SLOT, _UDP = 4, 17


class Header(NamedTuple):
    """As it is read."""

    visited: int
    origin: int
    spare: int
    sender: int
    flags: int


def tag(key: bytes, header: bytes, flow: Flow, protocol: int, receiver: int) -> bytes:
    """What signs a packet passed on: `header` is its first 8 bytes, from the GUE header on."""
    ports = struct.pack("!HHBB", flow.client_port, flow.public_port, protocol, receiver)
    return siphash24(key, header + flow.client + flow.public + ports)


def sign(packet: Packet, gateway: Gateway, header: Header, receiver: int, version: int) -> bytes:
    """The GUE header."""
    slot = _SLOT if gateway.active else 0
    first = bytes([3, 4 if version == 4 else 41, 0, 0]) + struct.pack(
        "!HBB", header.visited, header.origin << 4 | header.spare, header.sender << 4 | header.flags | slot
    )
    return first + tag(gateway.keys[gateway.active], first, packet.flow, packet.protocol, receiver)


Said = tuple[Packet, Gateway, Header]
"""What the GUE header says: about which packet, of which gateway."""


def wrap(link: bytes, data: bytes, said: Said, receiver: int, total: int) -> bytes:
    """The whole frame to a sibling; `total`: the inner length that the outer headers say."""
    packet, gateway, header = said
    version = data[0] >> 4
    tos = data[1] if version == 4 else (data[0] << 4 | data[1] >> 4) & 0xFF
    gue = sign(packet, gateway, header, receiver, version)
    udp = struct.pack("!HHHH", 0, 6080, total + 24, 0)
    source, destination = gateway.addresses[gateway.own], gateway.addresses[receiver]
    if len(source) == 4:
        ip = struct.pack("!BBHHHBBH", 0x45, tos, total + 44, 0, 0x4000, 64, _UDP, 0) + source + destination
        ip = ip[:10] + checksum(ip) + ip[12:]
    else:
        ip = struct.pack("!IHBB", 6 << 28 | tos << 20, total + 24, _UDP, 64) + source + destination
    return link + ETHERTYPE[4 if len(source) == 4 else 6] + ip + udp + gue + data


def checksum(header: bytes) -> bytes:
    """Of an IPv4 header."""
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (total ^ 0xFFFF).to_bytes(2, "big")
