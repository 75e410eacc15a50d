"""What the maps hold, as data and as the bytes of the structs in bpf/maps.h."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from epic.bpf.siphash import KEY_LENGTH
from epic.errors import Invalid

INSIDE_REDIRECT_PEER = 1

ID = struct.Struct("=I")
ADDRESS = struct.Struct("=4s")
COUNT = struct.Struct("=Q")
ENDPOINT_KEY = struct.Struct("=4s4s")
INSTANCE = struct.Struct("=4s4s16s")
INSIDE = struct.Struct("=IIII")
TRAFFIC = struct.Struct("=QQQQ")
PEER = struct.Struct("=IIQQ4s2s2x")
TUNNEL = struct.Struct("=I4s4s4s2sBBIII16s16s")

NO_ADDRESS = IPv4Address(0)


@dataclass(frozen=True)
class Tunnel:
    """One end of a tunnel between an instance and a workload node."""

    id: int
    service: int
    """Number of the gateway."""
    inside: IPv4Address
    local: IPv4Address
    """Our underlay address."""
    remote: IPv4Address | None
    """The far end's underlay address; None: learnt from its hellos."""
    remote_port: int
    underlay: str
    """Interface that encapsulated packets leave by."""
    interface: str | None
    """Host side of the instance's veth on EPIC nodes, None on workload nodes."""
    keys: tuple[bytes | None, bytes | None]
    """Slots by parity of the key's epoch; all that are there verify."""
    active: int
    """Slot of the key that signs."""


@dataclass(frozen=True)
class Peer:
    """The far end of a tunnel, as far as it is known."""

    address: IPv4Address
    port: int
    counter: int
    """Highest counter of its verified control packets."""
    last_hello_ns: int
    """CLOCK_MONOTONIC of the last of them; 0: none yet."""


@dataclass(frozen=True)
class TunnelCounters:
    """Inner packets and bytes of a tunnel, superpackets counted as their segments."""

    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int


def pack_tunnel(tunnel: Tunnel, ifindex: int, mtu: int) -> bytes:
    """`struct tunnel`; `ifindex` and `mtu` are those of the underlay interface."""
    _check(tunnel)
    valid = sum(1 << slot for slot, key in enumerate(tunnel.keys) if key is not None)
    first, second = (key or bytes(KEY_LENGTH) for key in tunnel.keys)
    return TUNNEL.pack(
        tunnel.service,
        tunnel.inside.packed,
        tunnel.local.packed,
        (tunnel.remote or NO_ADDRESS).packed,
        tunnel.remote_port.to_bytes(2, "big"),
        tunnel.active,
        valid,
        ifindex,
        mtu,
        0,
        first,
        second,
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


@dataclass(frozen=True)
class TunnelEnds:
    """The part of `struct tunnel` that is read back."""

    inside: IPv4Address
    local: IPv4Address
    remote: IPv4Address | None
    remote_port: int


def unpack_tunnel(value: bytes) -> TunnelEnds:
    """The addresses of `struct tunnel`."""
    _, inside, local, remote, port, *_ = TUNNEL.unpack(value)
    far = IPv4Address(remote)
    return TunnelEnds(
        IPv4Address(inside),
        IPv4Address(local),
        None if far == NO_ADDRESS else far,
        int.from_bytes(port, "big"),
    )


def unpack_peer(value: bytes) -> Peer:
    """`struct peer`; the address is 0.0.0.0 when none was observed."""
    _, _, counter, seen, address, port = PEER.unpack(value)
    return Peer(IPv4Address(address), int.from_bytes(port, "big"), counter, seen)


def sum_traffic(value: bytes) -> TunnelCounters:
    """The sum of `struct traffic` over the CPUs."""
    totals = map(sum, zip(*TRAFFIC.iter_unpack(value), strict=True))
    return TunnelCounters(*totals)
