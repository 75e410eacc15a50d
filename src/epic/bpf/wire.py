"""The tunnel's packets as bytes: control packets, and the tag of data packets (docs/transport.md)."""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address

from epic.bpf.siphash import siphash

GUE_PORT = 6080
KEY_BYTES = 16
_CONTROL_BASE = 0x29  # version 0, control bit, 9 words
_SIGNED = struct.Struct("!BBHIQQQ")
CONTROL_BYTES = _SIGNED.size + 8


class WireError(ValueError):
    """The bytes are no valid control packet."""


class ControlKind(IntEnum):
    """The ctype of a control packet."""

    HELLO = 1
    HELLO_ACK = 2


@dataclass(frozen=True)
class Control:
    """A control packet; times are the sender's nanoseconds, `echo_ns` answers the hello's `sent_ns`."""

    kind: ControlKind
    tunnel: int
    counter: int
    sent_ns: int
    echo_ns: int = 0


def encode(control: Control, key: bytes) -> bytes:
    """The UDP payload, signed with the tunnel's key of 16 bytes."""
    signed = _SIGNED.pack(
        _CONTROL_BASE,
        control.kind,
        0,
        control.tunnel,
        control.counter,
        control.sent_ns,
        control.echo_ns,
    )
    return signed + siphash(key, signed).to_bytes(8, "little")


def tunnel_of(payload: bytes) -> int:
    """The tunnel that a control packet names, unverified: to find its key."""
    if len(payload) != CONTROL_BYTES:
        raise WireError(f"a control packet has {CONTROL_BYTES} bytes, this one {len(payload)}")
    return int.from_bytes(payload[4:8], "big")


def decode(payload: bytes, key: bytes) -> Control:
    """The control packet in a UDP payload; raises WireError when it is malformed or the tag is wrong."""
    tunnel = tunnel_of(payload)
    base, kind, flags, _, counter, sent, echo = _SIGNED.unpack(payload[: _SIGNED.size])
    if base != _CONTROL_BASE or flags or kind not in tuple(ControlKind):
        raise WireError("header length, type or flags are none that EPIC sends")
    tag = siphash(key, payload[: _SIGNED.size]).to_bytes(8, "little")
    if not hmac.compare_digest(tag, payload[_SIGNED.size :]):
        raise WireError(f"the tag of a control packet for tunnel {tunnel} is wrong")
    return Control(ControlKind(kind), tunnel, counter, sent, echo)


def data_tag(
    key: bytes, tunnel: int, service: int, source: IPv4Address, target: IPv4Address, protocol: int
) -> bytes:
    """The tag of a data packet: over the tunnel, the service and the inner addresses and protocol."""
    words = struct.pack("!II4s4sB7x", tunnel, service, source.packed, target.packed, protocol)
    return siphash(key, words).to_bytes(8, "little")
