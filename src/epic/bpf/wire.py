"""The tunnel's packets as bytes; docs/transport.md draws them. The C twin is bpf/gue.h."""

from __future__ import annotations

import enum
import hmac
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from epic.bpf.siphash import siphash24
from epic.errors import EpicError

OVERHEAD = 48
"""Bytes that the tunnel adds to an IPv4 packet over IPv4."""

_CONTROL_BIT = 0x20
_TAGGED = struct.Struct("!BBHIQQQ")
_TAG_LENGTH = 8
CONTROL_LENGTH = _TAGGED.size + _TAG_LENGTH


class WireError(EpicError):
    """A datagram that is not a control packet of this tunnel."""


class Kind(enum.IntEnum):
    """Type of a control packet, in the range that GUE leaves to the user."""

    HELLO = 128
    """Workload node to EPIC node."""
    HELLO_ACK = 129
    """The answer: EPIC node to workload node."""


@dataclass(frozen=True)
class Control:
    """A control packet. The counter rises strictly, also over restarts: take the clock's nanoseconds."""

    kind: Kind
    tunnel: int
    counter: int
    sent_ns: int
    """Sender's clock; only the sender reads it again."""
    echo_ns: int = 0
    """`sent_ns` of the hello that is answered; 0 in a hello."""


def encode(control: Control, key: bytes) -> bytes:
    """The UDP payload, signed with `key`."""
    body = _TAGGED.pack(
        _CONTROL_BIT, control.kind, 0, control.tunnel, control.counter, control.sent_ns, control.echo_ns
    )
    return body + siphash24(key, body)


def tunnel_of(payload: bytes) -> int:
    """Which tunnel's keys decode this UDP payload."""
    return _parse(payload).tunnel


def decode(payload: bytes, key: bytes) -> Control:
    """Parse and verify a UDP payload."""
    control = _parse(payload)
    if not hmac.compare_digest(siphash24(key, payload[: _TAGGED.size]), payload[_TAGGED.size :]):
        raise WireError(f"control packet of tunnel {control.tunnel}: the tag does not fit the key")
    return control


def _parse(payload: bytes) -> Control:
    if len(payload) != CONTROL_LENGTH:
        raise WireError(f"a control packet has {CONTROL_LENGTH} bytes, this datagram has {len(payload)}")
    first, kind, flags, tunnel, counter, sent_ns, echo_ns = _TAGGED.unpack_from(payload)
    if first != _CONTROL_BIT or flags:
        raise WireError(
            f"a control packet begins with {_CONTROL_BIT:02x} and has no flags,"
            f" this one begins with {first:02x} and has {flags:04x}"
        )
    try:
        return Control(Kind(kind), tunnel, counter, sent_ns, echo_ns)
    except ValueError:
        types = ", ".join(str(int(known)) for known in Kind)
        raise WireError(f"control packets are of the types {types}, this one is of type {kind}") from None


def data_tag(
    key: bytes, tunnel: int, service: int, source: IPv4Address, destination: IPv4Address, protocol: int
) -> bytes:
    """The tag of a data packet: equal for all packets of a flow."""
    message = struct.pack("!II4s4sB", tunnel, service, source.packed, destination.packed, protocol)
    return siphash24(key, message)
