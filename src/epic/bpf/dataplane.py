"""The tunnel of this host: the one door to the programs and their maps."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

from epic.bpf import records
from epic.bpf.filters import HOOKS, Filters, Hook, Link
from epic.bpf.loader import Loader
from epic.bpf.maps import Maps
from epic.bpf.records import Peer, Tunnel, TunnelCounters
from epic.bpf.syscalls import open_pinned, program_info
from epic.errors import Invalid, NotFound

__all__ = ["Dataplane", "Peer", "Role", "Tunnel", "TunnelCounters"]

Role = Literal["gateway", "workload"]

_UNDERLAY_PROGRAMS: dict[Role, dict[Hook, str]] = {
    "gateway": {"ingress": "gateway_underlay_ingress"},
    "workload": {"ingress": "workload_underlay_ingress", "egress": "workload_underlay_egress"},
}
_PAIRS = ("veth", "netkit")
_SIOCGIFMTU = 0x8921


class Dataplane:
    """Loads, attaches and programs the tunnel in the current network namespace. One writer at a time."""

    def __init__(self, pin_directory: Path, object_file: Path) -> None:
        self._loader = Loader(pin_directory, object_file)
        self._opened: Maps | None = None

    def load(self) -> None:
        """Load the object unless it is; running programs of another version are replaced in place."""
        self._loader.load()
        self._close()
        with Filters() as filters:
            for attached in filters.attached():
                pin = self._program(attached.program)
                if attached.program_id != _program_id(pin):
                    filters.attach(attached.index, attached.hook, pin)
        self._loader.remove_others()

    def unload(self) -> None:
        """Detach everything and remove all pins; nothing of the tunnel is left."""
        with Filters() as filters:
            for attached in filters.attached():
                filters.detach(attached.index, attached.hook)
        self._close()
        self._loader.remove()

    def attach_underlay(self, interface: str, role: Role) -> None:
        """Take part in the tunnel on this interface."""
        with Filters() as filters:
            link = filters.link(interface)
            if not link.ethernet:
                raise Invalid(f"interface {interface} has no Ethernet header; the tunnel needs one")
            self._set_locals(link.index, filters.addresses(link.index))
            for hook in HOOKS:
                program = _UNDERLAY_PROGRAMS[role].get(hook)
                if program:
                    filters.attach(link.index, hook, self._program(program))
                else:
                    filters.detach(link.index, hook)

    def attach_instance(self, interface: str, inside: IPv4Address, public: IPv4Address) -> None:
        """Guard what an instance sends by the host side of its veth, and deliver to it."""
        with Filters() as filters:
            link = filters.link(interface)
            self._forget_instance(interface, keep=(link.index, inside.packed))
            self._maps.instances.set(
                records.ID.pack(link.index),
                records.INSTANCE.pack(inside.packed, public.packed, interface.encode()),
            )
            self._maps.insides.set(inside.packed, _inside_record(link))
            filters.attach(link.index, "ingress", self._program("instance_ingress"))

    def detach_instance(self, interface: str) -> None:
        """The inverse; also when the interface is gone already."""
        with Filters() as filters, suppress(NotFound):
            filters.detach(filters.link(interface).index, "ingress")
        self._forget_instance(interface)

    def set_tunnel(self, tunnel: Tunnel) -> None:
        """Create or change a tunnel; what was observed of its far end stays."""
        maps, key = self._maps, records.ID.pack(tunnel.id)
        underlay, mtu = _underlay(tunnel.underlay)
        value = records.pack_tunnel(tunnel, underlay, mtu)
        maps.peers.add(key, bytes(records.PEER.size))
        maps.traffic.add(key, bytes(records.TRAFFIC.size * maps.cpus))
        maps.locals.set(tunnel.local.packed, records.ID.pack(underlay))
        before = maps.tunnels.get(key)
        if tunnel.interface is None:
            maps.insides.set(tunnel.inside.packed, records.INSIDE.pack(0, 0, tunnel.id, 0))
        maps.tunnels.set(key, value)
        if before and (old := records.unpack_tunnel(before).inside) != tunnel.inside:
            self._forget_inside(old, tunnel.id)

    def delete_tunnel(self, id: int) -> None:
        """Remove a tunnel and what was observed of it."""
        maps, key = self._maps, records.ID.pack(id)
        before = maps.tunnels.get(key)
        maps.tunnels.delete(key)
        maps.peers.delete(key)
        maps.traffic.delete(key)
        if before:
            self._forget_inside(records.unpack_tunnel(before).inside, id)

    def tunnel_ids(self) -> set[int]:
        """All tunnels."""
        return {records.ID.unpack(key)[0] for key, _ in self._maps.tunnels.items()}

    def set_endpoint(self, inside: IPv4Address, endpoint: IPv4Address, tunnel_id: int) -> None:
        """Let the pair of addresses talk through the tunnel."""
        key = records.ENDPOINT_KEY.pack(inside.packed, endpoint.packed)
        self._maps.endpoints.set(key, records.ID.pack(tunnel_id))

    def delete_endpoint(self, inside: IPv4Address, endpoint: IPv4Address) -> None:
        """The inverse."""
        self._maps.endpoints.delete(records.ENDPOINT_KEY.pack(inside.packed, endpoint.packed))

    def endpoints(self) -> dict[tuple[IPv4Address, IPv4Address], int]:
        """All pairs (inside, endpoint) and their tunnels."""
        return {
            (IPv4Address(key[:4]), IPv4Address(key[4:])): records.ID.unpack(value)[0]
            for key, value in self._maps.endpoints.items()
        }

    def peer(self, tunnel_id: int) -> Peer | None:
        """The far end as observed, else as declared; None when neither is known."""
        key = records.ID.pack(tunnel_id)
        observed, declared = self._maps.peers.get(key), self._maps.tunnels.get(key)
        if observed is None or declared is None:
            return None
        peer, ends = records.unpack_peer(observed), records.unpack_tunnel(declared)
        if peer.address != records.NO_ADDRESS:
            return peer
        if ends.remote is None:
            return None
        return Peer(ends.remote, ends.remote_port, peer.counter, peer.last_hello_ns)

    def tunnel_counters(self) -> dict[int, TunnelCounters]:
        """Traffic of each tunnel."""
        return {
            records.ID.unpack(key)[0]: records.sum_traffic(value) for key, value in self._maps.traffic.items()
        }

    def drop_counters(self) -> dict[str, int]:
        """Packets dropped, by reason."""
        return self._maps.dropped()

    @property
    def _maps(self) -> Maps:
        if self._opened is None:
            self._opened = Maps(self._loader.directory / "maps")
        return self._opened

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _program(self, name: str) -> Path:
        return self._loader.directory / "programs" / name

    def _set_locals(self, index: int, addresses: set[bytes]) -> None:
        used = {records.unpack_tunnel(value).local.packed for _, value in self._maps.tunnels.items()}
        for key, value in list(self._maps.locals.items()):
            if records.ID.unpack(value)[0] == index and key not in addresses | used:
                self._maps.locals.delete(key)
        for address in addresses:
            self._maps.locals.set(address, records.ID.pack(index))

    def _forget_instance(self, interface: str, keep: tuple[int, bytes] | None = None) -> None:
        for key, value in list(self._maps.instances.items()):
            inside, _, name = records.INSTANCE.unpack(value)
            index = records.ID.unpack(key)[0]
            if name.rstrip(b"\0") != interface.encode() or (index, inside) == keep:
                continue
            self._maps.instances.delete(key)
            delivery = self._maps.insides.get(inside)
            if delivery and records.INSIDE.unpack(delivery)[0] == index:
                self._maps.insides.delete(inside)

    def _forget_inside(self, inside: IPv4Address, tunnel_id: int) -> None:
        entry = self._maps.insides.get(inside.packed)
        if entry and records.INSIDE.unpack(entry)[2] == tunnel_id:
            self._maps.insides.delete(inside.packed)


def _inside_record(link: Link) -> bytes:
    flags = records.INSIDE_REDIRECT_PEER if link.kind in _PAIRS else 0
    return records.INSIDE.pack(link.index, flags, 0, 0)


def _program_id(pin: Path) -> int:
    fd = open_pinned(pin)
    try:
        return program_info(fd).id
    finally:
        os.close(fd)


def _underlay(interface: str) -> tuple[int, int]:
    """Index and MTU, without netlink: it is asked for each tunnel."""
    try:
        index = socket.if_nametoindex(interface)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            request = struct.pack("16si12x", interface.encode(), 0)
            reply = fcntl.ioctl(any_socket, _SIOCGIFMTU, request)
    except OSError as error:
        raise NotFound(f"the underlay interface {interface} cannot be used: {error.strerror}") from error
    return index, struct.unpack_from("16si", reply)[1]
