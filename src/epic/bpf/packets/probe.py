# SPDX-License-Identifier: Apache-2.0
"""Probes between siblings' nodes as bytes; docs/transport.md draws them. The C twin is bpf/probe.h.

The programs of the node that is asked verify a probe and send it back as it is. The answer is believed for
its nonce, which nobody else knows.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from epic.bpf.packets.siphash import siphash24
from epic.bpf.packets.wire import WireError
from epic.bpf.tables.records import Address, pack_address, unpack_address

_TAGGED = struct.Struct("!BBHBBH16sQ")
_TAG_LENGTH = 8
_LENGTH = _TAGGED.size + _TAG_LENGTH
_CONTROL = 0x20
TYPE = 130
"""Of control packets, in the range that GUE leaves to the user."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One node asks another, as siblings of the gateway at `public`; by their indexes."""

    asker: int
    asked: int
    public: Address
    nonce: int


def encode(probe: Probe, key: bytes, asker: Address, asked: Address) -> bytes:
    """The UDP payload, signed with a key of the gateway, from one underlay address to the other."""
    public = pack_address(probe.public)
    body = _TAGGED.pack(_CONTROL, TYPE, 0, probe.asker, probe.asked, 0, public, probe.nonce)
    return body + siphash24(key, body + pack_address(asker) + pack_address(asked))


def is_probe(payload: bytes) -> bool:
    """Whether it is none of the other control packets."""
    return payload[1:2] == bytes([TYPE])


def decode(payload: bytes) -> Probe:
    """Parse a UDP payload; the tag is not looked at."""
    if len(payload) != _LENGTH:
        raise WireError(f"a probe has {_LENGTH} bytes, this datagram has {len(payload)}")
    first, kind, flags, asker, asked, reserved, public, nonce = _TAGGED.unpack_from(payload)
    address = unpack_address(public)
    if (first, kind, flags, reserved) != (_CONTROL, TYPE, 0, 0) or address is None:
        raise WireError("the datagram is no probe")
    return Probe(asker, asked, address, nonce)
