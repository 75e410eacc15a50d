# SPDX-License-Identifier: Apache-2.0
"""The tunnel of this host: the one door to the programs and their maps."""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Literal

from epic.bpf.programs import segmenter
from epic.bpf.programs.filters import HOOKS, LOOPBACK_INDEX, Filters, Hook, Link
from epic.bpf.programs.loader import Loader
from epic.bpf.programs.tcx import EgressLinks
from epic.bpf.tables import records
from epic.bpf.tables.chance_counters import SecondChanceCounters
from epic.bpf.tables.endpoint_table import EndpointTable, Pair
from epic.bpf.tables.events import EventRing
from epic.bpf.tables.maps import Maps
from epic.bpf.tables.records import Address, Endpoint, Peer, Route, Tunnel, TunnelCounters, TunnelEvent
from epic.bpf.tables.siblings import JOINED_MASK, Sibling, Siblings, SiblingTable
from epic.bpf.tables.tunnel_table import TunnelTable
from epic.errors import Invalid, NotFound

__all__ = [
    "JOINED_MASK",
    "Address",
    "Dataplane",
    "Endpoint",
    "EventRing",
    "Pair",
    "Peer",
    "Receive",
    "Role",
    "Route",
    "SecondChanceCounters",
    "Sibling",
    "Siblings",
    "Tunnel",
    "TunnelCounters",
    "TunnelEvent",
]

log = logging.getLogger(__name__)

Role = Literal["gateway", "workload"]
Receive = Literal["tc", "xdp"]

_UNDERLAY_PROGRAMS: dict[Role, dict[Hook, str]] = {
    "gateway": {"ingress": "gateway_underlay_ingress", "egress": "gateway_underlay_egress"},
    "workload": {"ingress": "workload_underlay_ingress", "egress": "workload_underlay_egress"},
}
_XDP_PROGRAMS: dict[Role, str] = {"gateway": "gateway_underlay_xdp", "workload": "workload_underlay_xdp"}
_PAIRS = ("veth", "netkit")
_ONLY = records.ID.pack(0)
_Opened = tuple[Maps, TunnelTable, EndpointTable, SiblingTable]


class Dataplane:
    """Loads, attaches and programs the tunnel in the current network namespace. One writer at a time."""

    def __init__(self, pin_directory: Path, object_file: Path) -> None:
        self._loader = Loader(pin_directory, object_file)
        self._links = EgressLinks(pin_directory)
        self._opened: _Opened | None = None

    def load(self) -> None:
        """Load the object unless it is; running programs of an older version are replaced in place.

        Not if maps begin empty for they have changed their shape: see `due`.
        """
        filled = self._loader.load()
        self.close()
        self._set_cookie()
        if filled:
            self.take_over()

    @property
    def due(self) -> bool:
        """Whether programs of an older version go on with its maps; once ours are filled: `take_over`."""
        return self._loader.due

    def settle(self) -> None:
        """The maps are filled: take over from an older version if that is due."""
        if self.due:
            self.take_over()
            log.info("the tunnel's programs are replaced by this version's")

    def take_over(self) -> None:
        """Replace all programs of an older version in place and remove its pins."""
        with Filters() as filters:
            for attached in filters.attached():
                self._run(filters, attached.index, attached.hook, attached.program)
            for index, program in filters.attached_xdp().items():
                filters.attach_xdp(index, self._program(program))
        self._loader.finish()

    def unload(self) -> None:
        """Detach everything and remove all pins; nothing of the tunnel is left."""
        with Filters() as filters:
            for attached in filters.attached():
                filters.detach(attached.index, attached.hook)
            for index in filters.attached_xdp():
                filters.detach_xdp(index)
        segmenter.remove()
        self.close()
        self._loader.remove()

    def close(self) -> None:
        """Give the descriptors back; they are opened again when needed."""
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None

    def attach_underlay(self, interface: str, role: Role, receive: Receive = "tc") -> None:
        """Take part in the tunnel on this interface; `xdp`: data is taken out before packets are merged."""
        with Filters() as filters:
            link = _ethernet(filters, interface)
            # Hosts that routing protocols find have their addresses on `lo`.
            for index in (link.index, LOOPBACK_INDEX):
                self._set_locals(index, filters.addresses(index))
            for hook in HOOKS:
                program = _UNDERLAY_PROGRAMS[role].get(hook)
                if program:
                    self._attach(filters, link.index, hook, program)
                else:
                    filters.detach(link.index, hook)
            if receive == "xdp":
                self._attach_xdp(filters, link.index, _XDP_PROGRAMS[role])
            else:
                filters.detach_xdp(link.index)
            self._ensure_segmenter(filters)

    def detach_underlay(self, interface: str) -> None:
        """The inverse; also when the interface is gone already."""
        with Filters() as filters, suppress(NotFound):
            index = filters.link(interface).index
            filters.detach_xdp(index)
            for hook in HOOKS:
                filters.detach(index, hook)
            self._links.release(index)
            self._set_locals(index, set())

    def is_linked(self, index: int) -> bool:
        """Whether what guards the interface's egress stays when somebody removes its filter."""
        return self._links.holds(index)

    def attach_instance(
        self, interface: str, inside: IPv4Address, inside6: IPv6Address | None, publics: Iterable[Address]
    ) -> None:
        """Guard what an instance sends by the host side of its veth."""
        with Filters() as filters:
            link = _pair(filters, interface)
            self._forget_instance(interface, keep=link.index)
            six = inside6.packed if inside6 else bytes(16)
            public = {address.version: address.packed for address in publics}
            record = records.INSTANCE.pack(
                inside.packed, public.get(4, bytes(4)), six, public.get(6, bytes(16)), interface.encode()
            )
            self._maps.insides.set(inside.packed, records.ID.pack(link.index))
            if inside6 is not None:
                self._maps.insides6.set(inside6.packed, records.ID.pack(link.index))
            self._maps.instances.set(records.ID.pack(link.index), record)
            self._attach(filters, link.index, "ingress", "instance_ingress")

    def detach_instance(self, interface: str) -> None:
        """The inverse; also when the interface is gone already.

        As long as the interface is there something may send from the inside addresses, which must not leave.
        """
        self._detach_ingress(interface)
        self._forget_instance(interface)
        self._forget_insides()

    def instances(self) -> set[str]:
        """The interfaces of all instances."""
        return {_name(value) for _, value in self._maps.instances.items()}

    def attach_pod(self, interface: str) -> None:
        """Take a pod's replies at the host side of its veth, for endpoints with an `interface`."""
        with Filters() as filters:
            self._attach(filters, _pair(filters, interface).index, "ingress", "pod_ingress")

    def detach_pod(self, interface: str) -> None:
        """The inverse; also when the interface is gone already."""
        self._detach_ingress(interface)

    def pods(self) -> set[str]:
        """The interfaces of all pods whose replies are taken."""
        with Filters() as filters:
            indexes = [a.index for a in filters.attached() if a.program == "pod_ingress"]
        names = set()
        for index in indexes:
            with suppress(OSError):
                names.add(socket.if_indextoname(index))
        return names

    def set_tunnel(self, tunnel: Tunnel) -> None:
        """Create or change a tunnel; what was observed of its far end stays."""
        self._tunnels.put(tunnel)

    def delete_tunnel(self, id: int) -> None:
        """Remove a tunnel and what was observed of it.

        On a workload node nothing leaves to its inside addresses for a while, unless another one has them.
        """
        self._tunnels.delete(id)

    def forget_insides(self) -> None:
        """That while is over for those of tunnels that were deleted long ago."""
        self._tunnels.forget_insides()

    def tunnel_ids(self) -> set[int]:
        """All tunnels."""
        return self._tunnels.ids()

    def set_endpoint(self, inside: Address, endpoint: Address, data: Endpoint) -> None:
        """Let the pair of addresses talk through the tunnel."""
        self._endpoints.set({(inside, endpoint): data})

    def set_endpoints(self, endpoints: Mapping[Pair, Endpoint]) -> None:
        """Let many pairs of addresses talk."""
        self._endpoints.set(endpoints)

    def delete_endpoint(self, inside: Address, endpoint: Address) -> None:
        """The inverse of setting it."""
        self._endpoints.delete([(inside, endpoint)])

    def delete_endpoints(self, pairs: Iterable[Pair]) -> None:
        """The inverse of setting many."""
        self._endpoints.delete(pairs)

    def endpoints(self, pairs: Iterable[Pair] | None = None) -> dict[Pair, Endpoint]:
        """All pairs (inside, endpoint), or those of these that are there, and how they are reached."""
        return self._endpoints.all() if pairs is None else self._endpoints.some(pairs)

    def peer(self, tunnel_id: int, lane: int = 0) -> Peer | None:
        """The far end as observed, else on workload nodes as declared; None when neither is known."""
        return self._tunnels.peer(tunnel_id, lane)

    def generation(self, tunnel_id: int) -> int:
        """Which hellos an EPIC node believes: another one when what was observed was lost, as in a reboot."""
        return self._tunnels.generation(tunnel_id)

    def tunnel_counters(self) -> dict[int, TunnelCounters]:
        """Traffic of each tunnel."""
        return self._tunnels.counters()

    def observed(self) -> Iterator[tuple[int, TunnelCounters, tuple[Peer, ...]]]:
        """Traffic of each tunnel, and its far end as the lanes that were heard show it; read bit by bit."""
        return self._tunnels.observed()

    def drop_counters(self) -> dict[str, int]:
        """Packets dropped, by reason."""
        return self._maps.dropped()

    def set_siblings(self, public: Address, siblings: Siblings) -> None:
        """Let packets for a gateway's address that have no socket here be passed on to its siblings."""
        self._siblings.put(public, siblings)

    def delete_siblings(self, public: Address) -> None:
        """The inverse: all packets for the address are the instance's here."""
        self._siblings.delete(public)

    def siblings(self) -> Iterator[tuple[Address, Siblings]]:
        """The siblings of each gateway, by its public address; read bit by bit."""
        return self._siblings.all()

    def second_chance_counters(self) -> Iterator[tuple[Address, SecondChanceCounters]]:
        """What became of each gateway's packets, by its public address; read bit by bit."""
        return self._siblings.counters()

    def events(self) -> EventRing:
        """What control packets show, as it happens; there must be one reader only.

        The ring is this version's: one of another shape stays silent until `take_over`.
        """
        return EventRing(self._loader.directory / "maps" / "events")

    @property
    def _maps(self) -> Maps:
        return self._open()[0]

    @property
    def _tunnels(self) -> TunnelTable:
        return self._open()[1]

    @property
    def _endpoints(self) -> EndpointTable:
        return self._open()[2]

    @property
    def _siblings(self) -> SiblingTable:
        return self._open()[3]

    def _open(self) -> _Opened:
        if self._opened is None:
            maps = Maps(self._loader.directory / "maps")
            tunnels = TunnelTable(maps)
            self._opened = maps, tunnels, EndpointTable(maps, tunnels), SiblingTable(maps)
        return self._opened

    def _program(self, name: str) -> Path:
        return self._loader.directory / "programs" / name

    def _attach(self, filters: Filters, index: int, hook: Hook, program: str) -> None:
        running = {(attached.hook, attached.program) for attached in filters.attached_to(index)}
        if not (self.due and (hook, program) in running):
            self._run(filters, index, hook, program)

    def _run(self, filters: Filters, index: int, hook: Hook, program: str) -> None:
        """By a filter, which every kernel has; at the egress by a link, too, which stays when filters go."""
        filters.attach(index, hook, self._program(program))
        if hook == "egress":
            self._links.hold(index, self._program(program))

    def _attach_xdp(self, filters: Filters, index: int, program: str) -> None:
        if not (self.due and filters.attached_xdp().get(index) == program):
            filters.attach_xdp(index, self._program(program))

    def _set_cookie(self) -> None:
        cookie, segments = self._settings()
        if not cookie:
            self._maps.settings.set(_ONLY, records.SETTINGS.pack(secrets.randbits(64) or 1, segments))

    def _settings(self) -> tuple[int, int]:
        cookie, segments = records.SETTINGS.unpack(self._maps.settings.get(_ONLY) or b"")
        return cookie, segments

    def _ensure_segmenter(self, filters: Filters) -> None:
        cookie, before = self._settings()
        index = segmenter.ensure()
        if index != before:
            self._attach(filters, filters.link(segmenter.EXIT).index, "ingress", "segment_ingress")
            self._maps.settings.set(_ONLY, records.SETTINGS.pack(cookie, index))

    def _set_locals(self, index: int, addresses: set[Address]) -> None:
        packed = {records.pack_address(address) for address in addresses}
        used = packed | {records.pack_address(address) for address in self._tunnels.locals()}
        for key, value in list(self._maps.locals.items()):
            if records.ID.unpack(value)[0] == index and key not in used:
                self._maps.locals.delete(key)
        for address in packed:
            self._maps.locals.set(address, records.ID.pack(index))

    def _detach_ingress(self, interface: str) -> None:
        with Filters() as filters, suppress(NotFound):
            filters.detach(filters.link(interface).index, "ingress")

    def _forget_instance(self, interface: str, keep: int | None = None) -> None:
        for key, value in list(self._maps.instances.items()):
            if _name(value) == interface and records.ID.unpack(key)[0] != keep:
                self._maps.instances.delete(key)

    def _forget_insides(self) -> None:
        """Of instances whose interfaces are gone."""
        for insides in (self._maps.insides, self._maps.insides6):
            gone = [key for key, index in insides.items() if not _exists(index)]
            insides.delete_all(gone)


def _exists(index: bytes) -> bool:
    try:
        socket.if_indextoname(*records.ID.unpack(index))
    except OSError:
        return False
    return True


def _name(instance: bytes) -> str:
    *_, name = records.INSTANCE.unpack(instance)
    return bytes(name).rstrip(b"\0").decode()


def _ethernet(filters: Filters, interface: str) -> Link:
    link = filters.link(interface)
    if not link.ethernet:
        raise Invalid(f"interface {interface} has no Ethernet header; the tunnel needs one")
    return link


def _pair(filters: Filters, interface: str) -> Link:
    link = filters.link(interface)
    if link.kind not in _PAIRS:
        raise Invalid(
            f"interface {interface} is {link.kind or 'hardware'}; packets are handed over only to "
            f"one side of a pair ({', '.join(_PAIRS)})"
        )
    return link
