# SPDX-License-Identifier: Apache-2.0
"""Scapy layers of the tunnel: what docs/transport.md draws."""

from __future__ import annotations

from scapy.fields import (
    BitField,
    ByteField,
    ConditionalField,
    FlagsField,
    IntField,
    LongField,
    ShortField,
    StrFixedLenField,
)
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, bind_layers

PORT = 6080
LANES = 4
HELLO, HELLO_ACK = 128, 129
SPREAD, CHECKSUM, DIRECT = 1, 2, 4

_INNER = {4: IP, 41: IPv6}


def _is_data(packet: GUE) -> bool:
    return not packet.control


def _is_control(packet: GUE) -> bool:
    return bool(packet.control)


class GUE(Packet):
    """Variant 0 with EPIC's private data, or with a control message of EPIC."""

    name = "GUE"
    fields_desc = [
        BitField("version", 0, 2),
        BitField("control", 0, 1),
        BitField("hlen", 4, 5),
        ByteField("proto", 4),
        ShortField("flags", 0),
        IntField("tunnel", 0),
        ConditionalField(IntField("service", 0), _is_data),
        ConditionalField(LongField("counter", 0), _is_control),
        ConditionalField(LongField("sent_ns", 0), _is_control),
        ConditionalField(LongField("echo_ns", 0), _is_control),
        ConditionalField(ByteField("lane", 0), _is_control),
        ConditionalField(ByteField("lanes", 1), _is_control),
        ConditionalField(FlagsField("lane_flags", 0, 16, ["spread", "checksum", "direct"]), _is_control),
        ConditionalField(IntField("generation", 0), _is_control),
        StrFixedLenField("tag", bytes(8), 8),
    ]

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        """IP in data packets; nothing follows a control message."""
        plain = Packet.guess_payload_class(self, payload)
        return _INNER.get(self.proto, plain) if _is_data(self) else plain


for _port in range(PORT, PORT + LANES):
    bind_layers(UDP, GUE, dport=_port)
    bind_layers(UDP, GUE, sport=_port)
