# SPDX-License-Identifier: Apache-2.0
"""What the maps hold, as data and as the bytes of the structs in bpf/maps.h."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal, NamedTuple

from epic.bpf.packets.siphash import KEY_LENGTH
from epic.errors import Invalid

Address = IPv4Address | IPv6Address

ID = struct.Struct("=I")
IPV4 = struct.Struct("=4s")
ADDRESS = struct.Struct("=16s")
COUNT = struct.Struct("=Q")
ENDPOINT_KEY = struct.Struct("=4s4s")
ENDPOINT6_KEY = struct.Struct("=16s16s")
ENDPOINT = struct.Struct("=III4x16s32x")
REAL_KEY = struct.Struct("=I4x16s")
INSTANCE = struct.Struct("=4s4s16s16s16s")
TRAFFIC = struct.Struct("=QQQQ")
SETTINGS = struct.Struct("=QI4x")
END = struct.Struct("=16s16s2sH4x")
LANE = struct.Struct(f"=QQI4x{END.size}s{END.size}s")
LANES = 4
PEER = struct.Struct(f"=4xII20x{LANES * LANE.size}s")
EVENT = struct.Struct(f"=IHHQ{END.size}s{END.size}s")
MAX_SIBLINGS = 16
SIBLINGS = struct.Struct(f"=iBBBBHHHHIH2xQQQ16s16s{MAX_SIBLINGS * 2}s{MAX_SIBLINGS * 16}s")
TUNNEL = struct.Struct(f"=IIIIII4sBBBxI4x8s16s16s16s{END.size}s16sI16s4x")

SPREAD, CHECKSUM = 1, 2
"""Flags of `struct end`."""

_MAPPED = bytes(10) + b"\xff\xff"
_UNKNOWN = bytes(16)
_FAMILIES = {4: 2, 6: 10}
_KINDS: tuple[Literal["up", "moved"], ...] = ("up", "moved")


@dataclass(frozen=True, slots=True)
class Route:
    """How the underlay reaches a far end."""

    far: Address
    interface: str
    next_hop: Address | None
    """None: the far end is on the link."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One end of a tunnel between an instance and a workload node."""

    id: int
    service: int
    """Number of the gateway."""
    inside: IPv4Address
    inside6: IPv6Address | None
    local: Address | None
    """Our underlay address; None on EPIC nodes: the one that the far end's hellos come to."""
    remote: Address | None
    """The far end's underlay address. On EPIC nodes it is only what was declared: hellos show the way."""
    remote_port: int
    underlay: str
    """Interface whose MTU limits encapsulated packets."""
    interface: str | None
    """Host side of the instance's veth on EPIC nodes, None on workload nodes."""
    keys: tuple[bytes | None, bytes | None]
    """Slots by parity of the key's epoch; all that are there verify."""
    active: int
    """Slot of the key that signs."""
    route: Route | None = None
    """Used while the far end is at `route.far`; otherwise the routing table is asked for each packet."""
    lanes: int = 1
    """Source ports that a workload node sends from."""
    spread: bool = False
    """A workload node may send from any port: neither NAT nor stateful firewall is in between."""
    checksum: bool = False
    """A workload node fills outer UDP checksums in; an EPIC node does what hellos ask for."""


class Peer(NamedTuple):
    """The far end of a tunnel, as far as it is known."""

    address: Address
    port: int
    local: Address | None
    """Our address that it speaks to; None: it was not heard yet."""
    counter: int
    """Highest counter of its verified control packets."""
    last_hello_ns: int
    """CLOCK_MONOTONIC of the last of them; 0: none yet."""
    lanes: int
    """That it says it has."""
    spread: bool
    checksum: bool


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How an endpoint is reached."""

    tunnel: int
    real: Address | None = None
    """EPIC node: what the workload's network calls it; None: the same."""
    interface: str | None = None
    """Workload node: host side of the pod's veth, to deliver past the stack; None: the stack delivers."""


class TunnelCounters(NamedTuple):
    """Inner packets and bytes of a tunnel, GSO packets counted as their segments."""

    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int


class TunnelEvent(NamedTuple):
    """Something that a control packet showed."""

    kind: Literal["up", "moved"]
    tunnel: int
    lane: int
    at_ns: int
    """CLOCK_MONOTONIC."""
    before: tuple[Address, int] | None
    after: tuple[Address, int]


class Underlay(NamedTuple):
    """What a tunnel's entry says of our side."""

    interface: int
    mtu: int
    instance: int
    """Index of the instance's interface; 0 on workload nodes."""
    route: int
    """Index of the interface of the tunnel's route; 0: none."""


def pack_address(address: Address | None) -> bytes:
    """`union address`: IPv4 as IPv4-mapped IPv6, 0 when there is none."""
    if address is None:
        return _UNKNOWN
    return _MAPPED + address.packed if address.version == 4 else address.packed


def unpack_address(packed: bytes) -> Address | None:
    """The inverse."""
    if packed == _UNKNOWN:
        return None
    return IPv4Address(packed[12:]) if packed.startswith(_MAPPED) else IPv6Address(packed)


def pack_tunnel(tunnel: Tunnel, slot: int, underlay: Underlay, fingerprint: bytes) -> bytes:
    """`struct tunnel`; the fingerprint is another one whenever tags are others, and 0 in between."""
    _check(tunnel)
    first, second = (key or bytes(KEY_LENGTH) for key in tunnel.keys)
    flags = SPREAD * tunnel.spread | CHECKSUM * tunnel.checksum
    route = tunnel.route if underlay.route else None
    hop = (route.next_hop or route.far) if route else None
    return TUNNEL.pack(
        *(tunnel.id, tunnel.service, slot, underlay.instance, underlay.interface, underlay.mtu),
        tunnel.inside.packed,
        *(tunnel.active, sum(1 << n for n, key in enumerate(tunnel.keys) if key is not None), tunnel.lanes),
        *(underlay.route, fingerprint, first, second, pack_address(tunnel.inside6)),
        END.pack(
            pack_address(tunnel.remote),
            pack_address(tunnel.local),
            tunnel.remote_port.to_bytes(2, "big"),
            flags,
        ),
        *(pack_address(route.far if route else None), _FAMILIES[hop.version] if hop else 0),
        hop.packed if hop else b"",
    )


def _check(tunnel: Tunnel) -> None:
    if tunnel.id <= 0:
        raise Invalid(f"tunnel {tunnel.id}: ids are 1 and higher")
    if tunnel.active not in (0, 1) or tunnel.keys[tunnel.active] is None:
        raise Invalid(f"tunnel {tunnel.id}: slot {tunnel.active} signs and must hold a key")
    for slot, key in enumerate(tunnel.keys):
        if key is not None and len(key) != KEY_LENGTH:
            raise Invalid(
                f"tunnel {tunnel.id}: the key in slot {slot} has {len(key)} bytes, not {KEY_LENGTH}"
            )
    if not 1 <= tunnel.lanes <= LANES:
        raise Invalid(f"tunnel {tunnel.id}: {tunnel.lanes} lanes; there can be 1 to {LANES}")
    if tunnel.local and tunnel.remote and tunnel.local.version != tunnel.remote.version:
        raise Invalid(f"tunnel {tunnel.id}: {tunnel.local} and {tunnel.remote} are of different families")


class TunnelRecord(NamedTuple):
    """The part of `struct tunnel` that is read back."""

    id: int
    service: int
    slot: int
    interface: int
    inside: IPv4Address
    inside6: IPv6Address | None
    local: Address | None
    remote: Address | None
    remote_port: int
    active: int
    keys: tuple[bytes, bytes]
    fingerprint: bytes


def unpack_tunnel(value: bytes) -> TunnelRecord:
    """`struct tunnel`."""
    id_, service, slot, interface, _, _, inside, active, *rest = TUNNEL.unpack(value)
    _, _, _, fingerprint, first, second, inside6, declared, *_ = rest
    remote, local, port, _ = END.unpack(declared)
    return TunnelRecord(
        *(id_, service, slot, interface, IPv4Address(inside)),
        None if inside6 == _UNKNOWN else IPv6Address(inside6),
        *(unpack_address(local), unpack_address(remote), int.from_bytes(port, "big")),
        *(active, (first, second), fingerprint),
    )


def new_peer(generation: int) -> bytes:
    """`struct peer` before the first hello."""
    return PEER.pack(0, generation, b"")


def generation_of(value: bytes) -> int:
    """Of the counters in `struct peer`."""
    return int(PEER.unpack(value)[1])


def unpack_peer(value: bytes, lane: int) -> Peer | None:
    """`struct peer`; None when the lane was never heard."""
    lanes, _, packed = PEER.unpack(value)
    counter, seen, current, *ends = LANE.unpack_from(packed, lane * LANE.size)
    address, local, port, flags = END.unpack(ends[current & 1])
    known = unpack_address(address)
    if known is None:
        return None
    return Peer(
        *(known, int.from_bytes(port, "big"), unpack_address(local), counter, seen, lanes),
        spread=bool(flags & SPREAD),
        checksum=bool(flags & CHECKSUM),
    )


def unpack_peers(value: bytes) -> tuple[Peer, ...]:
    """The lanes of `struct peer` that were heard, among those that the far end says it has."""
    lanes, *_ = PEER.unpack(value)
    found = (unpack_peer(value, lane) for lane in range(min(lanes, LANES)))
    return tuple(peer for peer in found if peer is not None)


def unpack_event(value: bytes) -> TunnelEvent:
    """`struct event`."""
    tunnel, kind, lane, at_ns, before, after = EVENT.unpack(value)
    now = _end(after)
    if now is None:
        raise ValueError(f"an event of tunnel {tunnel} has no address")
    return TunnelEvent(_KINDS[kind], tunnel, lane, at_ns, _end(before), now)


def _end(value: bytes) -> tuple[Address, int] | None:
    address, _, port, _ = END.unpack(value)
    known = unpack_address(address)
    return None if known is None else (known, int.from_bytes(port, "big"))


def sum_traffic(value: bytes) -> TunnelCounters:
    """The sum of `struct traffic` over the CPUs."""
    totals = map(sum, zip(*TRAFFIC.iter_unpack(value), strict=True))
    return TunnelCounters(*totals)
