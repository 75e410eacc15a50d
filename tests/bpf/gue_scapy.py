"""Scapy layers of the tunnel: what docs/transport.md draws."""

from __future__ import annotations

from scapy.fields import (
    BitField,
    ByteField,
    ConditionalField,
    IntField,
    LongField,
    ShortField,
    StrFixedLenField,
)
from scapy.layers.inet import IP, UDP
from scapy.packet import Packet, bind_layers

HELLO, HELLO_ACK = 128, 129


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
        StrFixedLenField("tag", bytes(8), 8),
    ]

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        """IPv4 in data packets; nothing follows a control message."""
        return IP if _is_data(self) and self.proto == 4 else Packet.guess_payload_class(self, payload)


bind_layers(UDP, GUE, dport=6080)
bind_layers(UDP, GUE, sport=6080)
