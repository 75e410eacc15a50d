# SPDX-License-Identifier: Apache-2.0
"""The tunnel's packets as bytes; docs/transport.md draws them. The C twin is bpf/gue.h."""

from __future__ import annotations

import enum
import hmac
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from epic.bpf.packets.siphash import siphash24
from epic.errors import EpicError

Address = IPv4Address | IPv6Address

OVERHEAD = {4: 48, 6: 68}
"""Bytes that the tunnel adds to a packet, by the version of the outer IP header."""

MAX_LANES = 4
"""Ports of a workload node, from GUE's own upwards."""

_CONTROL_BIT = 0x20
_TAGGED = struct.Struct("!BBHIQQQBBHI")
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


class Flags(enum.IntFlag):
    """What a workload node asks for in a hello, and what an EPIC node tells it in the answer."""

    SPREAD = 1
    """Data may come from any source port: neither NAT nor stateful firewall is in between."""
    CHECKSUM = 2
    """Data must have outer UDP checksums."""
    DIRECT = 4
    """The hello came from the declared address and port."""


NO_FLAGS = Flags(0)


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
    lane: int = 0
    lanes: int = 1
    """How many the workload node has."""
    flags: Flags = NO_FLAGS
    generation: int = 0
    """The EPIC node's: in a hello, as the last answer said (0: there was none)."""


def overhead(outer: Address) -> int:
    """Bytes that the tunnel adds to a packet when it ends at such an address."""
    return OVERHEAD[outer.version]


def encode(control: Control, key: bytes) -> bytes:
    """The UDP payload, signed with `key`."""
    body = _TAGGED.pack(
        *(_CONTROL_BIT, control.kind, 0, control.tunnel, control.counter, control.sent_ns, control.echo_ns),
        *(control.lane, control.lanes, control.flags, control.generation),
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
    first, kind, base_flags, tunnel, *numbers = _TAGGED.unpack_from(payload)
    counter, sent_ns, echo_ns, lane, lanes, flags, generation = numbers
    if first != _CONTROL_BIT or base_flags:
        raise WireError(
            f"a control packet begins with {_CONTROL_BIT:02x} and has no GUE flags,"
            f" this one begins with {first:02x} and has {base_flags:04x}"
        )
    if not lane < lanes <= MAX_LANES:
        raise WireError(f"lane {lane} of {lanes}: there are at most {MAX_LANES}, counted from 0")
    if flags & ~sum(Flags):
        raise WireError(f"flags {flags:04x} say something unknown")
    try:
        return Control(Kind(kind), tunnel, counter, sent_ns, echo_ns, lane, lanes, Flags(flags), generation)
    except ValueError:
        types = ", ".join(str(int(known)) for known in Kind)
        raise WireError(f"control packets are of the types {types}, this one is of type {kind}") from None


def data_tag(
    key: bytes, tunnel: int, service: int, source: Address, destination: Address, protocol: int
) -> bytes:
    """The tag of a data packet: equal for all packets of a flow. IPv6: the fixed header's next header."""
    addresses = source.packed + destination.packed
    return siphash24(key, struct.pack("!II", tunnel, service) + addresses + bytes([protocol]))
