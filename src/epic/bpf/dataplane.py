"""What the agent does with the tunnel programs: tunnels, endpoints, attachments, counters."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

from epic.bpf.drop_reasons import DROP_REASONS
from epic.bpf.programs import EGRESS, INGRESS, Programs, interface_index, interfaces
from epic.bpf.syscalls import LOCK, PinnedMap, possible_cpus

_ID = struct.Struct("=I")
_TUNNEL = struct.Struct("=16s16s4s4s4s4sII2sHBBBx")
_PEER = struct.Struct("=4x4s2s2x4xQQ")
_COUNTERS = struct.Struct("=QQQQ")
_ENDPOINT = struct.Struct("=4s4s")
_COUNT = struct.Struct("=Q")
_LEARN = 1
_NOWHERE = IPv4Address(0)

Role = Literal["gateway", "workload"]
_PROGRAMS: dict[Role, dict[int, str]] = {
    "gateway": {INGRESS: "gateway_underlay_ingress"},
    "workload": {INGRESS: "workload_underlay_ingress", EGRESS: "workload_underlay_egress"},
}


@dataclass(frozen=True)
class Tunnel:
    """One end of a tunnel. `remote` None: learnt from hello packets only (the EPIC end).

    `interface` is the host end of the instance's veth pair (EPIC end) or None (workload end). `keys` are the
    two slots (epoch modulo 2) of 16 bytes each; `active` is the slot that signs. `mtu` is the underlay's.
    """

    id: int
    service: int
    inside: IPv4Address
    local: IPv4Address
    remote: IPv4Address | None
    remote_port: int
    underlay: str
    interface: str | None
    keys: tuple[bytes | None, bytes | None]
    active: int
    mtu: int = 1500


@dataclass(frozen=True)
class Peer:
    """What verified control packets told of the other end; `last_hello_ns` is CLOCK_MONOTONIC, 0: none."""

    address: IPv4Address
    port: int
    counter: int
    last_hello_ns: int


@dataclass(frozen=True)
class TunnelCounters:
    """Tunnel packets and their bytes (outer IP), received and sent at this end."""

    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int


class _Maps:
    """The pinned maps, open."""

    def __init__(self, directory: Path) -> None:
        cpus = possible_cpus()
        self.tunnels = PinnedMap(directory / "tunnels", _ID.size, _TUNNEL.size)
        self.peers = PinnedMap(directory / "peers", _ID.size, _PEER.size, LOCK)
        self.stats = PinnedMap(directory / "tunnel_stats", _ID.size, _COUNTERS.size * cpus)
        self.endpoints = PinnedMap(directory / "endpoints", _ENDPOINT.size, _ID.size)
        self.insides = PinnedMap(directory / "insides", 4, _ID.size)
        self.instances = PinnedMap(directory / "instances", _ID.size, _ENDPOINT.size)
        self.drops = PinnedMap(directory / "drops", _ID.size, _COUNT.size * cpus)

    def close(self) -> None:
        for opened in vars(self).values():
            opened.close()


class Dataplane:
    """The tunnel on this host. All methods are idempotent; `load` comes first."""

    def __init__(self, pin_directory: Path, object_file: Path) -> None:
        self._programs = Programs(pin_directory, object_file)
        self._opened: _Maps | None = None

    @property
    def _maps(self) -> _Maps:
        if self._opened is None:
            self._opened = _Maps(self._programs.maps)
        return self._opened

    def load(self) -> None:
        """Load and pin the programs; those of another version are replaced where they are attached."""
        if self._programs.load():
            for found in self._programs.attached():
                self._programs.attach(found.interface, found.parent, found.program)
        self._programs.remove_other_versions()

    def attach_underlay(self, interface: str, role: Role) -> None:
        """Attach the role's programs to an underlay interface."""
        for parent, program in _PROGRAMS[role].items():
            self._programs.attach(interface, parent, program)

    def attach_instance(self, interface: str, inside: IPv4Address, public: IPv4Address) -> None:
        """Attach to the host end of an instance's veth pair, and say which addresses it may use."""
        key = _ID.pack(interface_index(interface))
        self._maps.instances.set(key, _ENDPOINT.pack(inside.packed, public.packed))
        self._programs.attach(interface, INGRESS, "instance_ingress")

    def detach_instance(self, interface: str) -> None:
        """Detach from an instance, also when its interface is gone; entries of vanished interfaces go too."""
        self._programs.detach(interface, INGRESS)
        kept = {index for index, name in interfaces().items() if name != interface}
        for key in list(self._maps.instances):
            if _ID.unpack(key)[0] not in kept:
                self._maps.instances.delete(key)

    def set_tunnel(self, tunnel: Tunnel) -> None:
        """Create or change a tunnel; what was observed of its other end stays."""
        key = _ID.pack(tunnel.id)
        self._maps.peers.set(key, bytes(_PEER.size), only_new=True)
        self._maps.stats.set(key, b"", only_new=True)
        self._maps.tunnels.set(key, _pack_tunnel(tunnel))
        if tunnel.interface is None:
            self._maps.insides.set(tunnel.inside.packed, key)

    def delete_tunnel(self, id: int) -> None:
        """Remove a tunnel with all that was observed of it."""
        key = _ID.pack(id)
        stored = self._maps.tunnels.get(key)
        if stored is not None:
            inside = _TUNNEL.unpack(stored)[2]
            if self._maps.insides.get(inside) == key:
                self._maps.insides.delete(inside)
        for each in (self._maps.tunnels, self._maps.peers, self._maps.stats):
            each.delete(key)

    def tunnel_ids(self) -> set[int]:
        """The tunnels that there are."""
        return {_ID.unpack(key)[0] for key in self._maps.tunnels}

    def set_endpoint(self, inside: IPv4Address, endpoint: IPv4Address, tunnel_id: int) -> None:
        """Lead packets between an inside address and an endpoint through a tunnel."""
        self._maps.endpoints.set(_ENDPOINT.pack(inside.packed, endpoint.packed), _ID.pack(tunnel_id))

    def delete_endpoint(self, inside: IPv4Address, endpoint: IPv4Address) -> None:
        """Stop doing so."""
        self._maps.endpoints.delete(_ENDPOINT.pack(inside.packed, endpoint.packed))

    def endpoints(self) -> dict[tuple[IPv4Address, IPv4Address], int]:
        """{inside, endpoint} -> tunnel id."""
        return {
            (IPv4Address(inside), IPv4Address(endpoint)): _ID.unpack(value)[0]
            for key, value in self._maps.endpoints.items()
            for inside, endpoint in [_ENDPOINT.unpack(key)]
        }

    def peer(self, tunnel_id: int) -> Peer | None:
        """What was observed of a tunnel's other end; None when there is no such tunnel."""
        stored = self._maps.peers.get(_ID.pack(tunnel_id))
        if stored is None:
            return None
        address, port, counter, last = _PEER.unpack(stored)
        return Peer(IPv4Address(address), int.from_bytes(port, "big"), counter, last)

    def tunnel_counters(self) -> dict[int, TunnelCounters]:
        """The counters of all tunnels."""
        return {
            _ID.unpack(key)[0]: TunnelCounters(*map(sum, zip(*_COUNTERS.iter_unpack(value), strict=True)))
            for key, value in self._maps.stats.items()
        }

    def drop_counters(self) -> dict[str, int]:
        """Packets dropped, by the reason's name."""
        return dict(zip(DROP_REASONS, self._drop_counts(), strict=True))

    def unload(self) -> None:
        """Detach from all interfaces and remove programs and maps."""
        for found in self._programs.attached():
            self._programs.detach(found.interface, found.parent)
        if self._opened is not None:
            self._opened.close()
            self._opened = None
        self._programs.unpin()

    def _drop_counts(self) -> Iterator[int]:
        for index in range(len(DROP_REASONS)):
            value = self._maps.drops.get(_ID.pack(index)) or b""
            yield sum(count for (count,) in _COUNT.iter_unpack(value))


def _pack_tunnel(tunnel: Tunnel) -> bytes:
    even, odd = tunnel.keys
    if tunnel.keys[tunnel.active] is None:
        raise ValueError(f"tunnel {tunnel.id}: the active key slot {tunnel.active} is empty")
    return _TUNNEL.pack(
        even or bytes(16),
        odd or bytes(16),
        tunnel.inside.packed,
        tunnel.service.to_bytes(4, "big"),
        tunnel.local.packed,
        (tunnel.remote or _NOWHERE).packed,
        interface_index(tunnel.underlay),
        interface_index(tunnel.interface) if tunnel.interface else 0,
        tunnel.remote_port.to_bytes(2, "big"),
        tunnel.mtu,
        (even is not None) | (odd is not None) << 1,
        tunnel.active,
        _LEARN if tunnel.interface else 0,
    )
