# SPDX-License-Identifier: Apache-2.0
"""Links, addresses, routes and neighbours by netlink. Methods block; an object belongs to one thread."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from epic.agent.netlink import rtnetlink as rt
from epic.bpf.programs.filters import FILTER_HANDLE, HOOKS, PARENTS, PREFIX, PRIORITY, Hook
from epic.bpf.tables.records import Address

PROTOCOL = 50
"""Routes with this protocol number are EPIC's."""

MAIN_TABLE = 254
_UNICAST, _LOCAL, _BLACKHOLE = 1, 2, 6
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_METRICS, _RTA_MULTIPATH = 1, 4, 5, 7, 8, 9
_RTA_SRC, _RTA_TABLE, _RTAX_MTU = 2, 15, 2
_ONLINK, _FIB_MATCH = 4, 0x2000
_IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _INFO_KIND, _IFF_UP = 3, 4, 18, 1, 1
_IFLA_XDP, _XDP_PROGRAM, _IFLA_LINK_NETNSID = 43, 4, 37
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_TCA_OPTIONS, _TCA_BPF_NAME = 2, 7
_NDA_DST, _NDA_LLADDR, _PERMANENT = 1, 2, 0x80
_SCOPE_LINK = 253
_GONE = {errno.ESRCH, errno.ENODEV, errno.ENOENT}
_UNROUTABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EACCES, errno.EADDRNOTAVAIL}
# How an old kernel answers when it cannot say which route matches.
_NO_MATCH = {errno.EOPNOTSUPP}


@dataclass(frozen=True)
class Link:
    """An interface."""

    index: int
    mtu: int
    kind: str
    up: bool
    xdp: int = field(default=0, compare=False)
    """The XDP program's number; 0: none."""
    namespace: int | None = None
    """The id of the network namespace of its other side; None: it is ours, or there is no other side."""


class HostRoute(NamedTuple):
    """A route of ours to one address, by a next hop on the underlay."""

    destination: Address
    interface: str
    via: Address
    mtu: int


class ResolvedRoute(NamedTuple):
    """How packets to an address leave now."""

    interface: str
    next_hop: Address | None
    """None: it is on the link."""
    local: Address | None
    single: bool = True
    """False: the kernel chooses among several for each flow."""


class Netlink:
    """A netlink socket in the network namespace of the thread that makes it."""

    def __init__(self) -> None:
        self._channel = rt.Channel()

    @property
    def port(self) -> int:
        """What messages about our own changes name as their sender."""
        return self._channel.port

    def close(self) -> None:
        """Close the socket."""
        self._channel.close()

    def links(self) -> dict[str, Link]:
        """All interfaces by name."""
        return dict(_link(body) for body in self._channel.dump(rt.GETLINK, rt.LINK.pack(0, 0, 0, 0, 0)))

    def addresses(self) -> dict[int, tuple[Address, ...]]:
        """The addresses of each interface by its index, those for the link alone left out."""
        found: dict[int, list[Address]] = {}
        for body in self._channel.dump(rt.GETADDR, rt.ADDRESS.pack(0, 0, 0, 0, 0)):
            _, _, _, scope, index = rt.ADDRESS.unpack_from(body)
            values = rt.attributes(body, rt.ADDRESS.size)
            packed = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
            if packed and scope != _SCOPE_LINK:
                found.setdefault(index, []).append(ipaddress.ip_address(packed))
        return {index: tuple(addresses) for index, addresses in found.items()}

    def filters(self, index: int) -> frozenset[tuple[Hook, str]]:
        """Our filters on an interface: where, and which program."""
        return frozenset((hook, name) for hook in HOOKS for name in self._filters(index, hook))

    def flag_routes(self) -> frozenset[Address]:
        """Addresses that have a flag route."""
        return frozenset(
            address
            for family in (socket.AF_INET, socket.AF_INET6)
            for address, kind, _ in self._ours(family)
            if kind == _BLACKHOLE
        )

    def add_flag_route(self, address: Address) -> None:
        """Make the flag route of `address`, which the routing daemon announces.

        There may be one, or somebody else's route to the same address: then there is none afterwards either.
        """
        with suppress(FileExistsError):
            self._channel.change(rt.Request(rt.NEWROUTE, rt.CREATE, _route(address, _BLACKHOLE)))

    def remove_flag_route(self, address: Address) -> None:
        """Remove the flag route of `address`; there need be none."""
        self._remove([rt.Request(rt.DELROUTE, 0, _route(address, _BLACKHOLE))])

    def host_routes(self) -> frozenset[HostRoute]:
        """The host routes that we made."""
        names = {link.index: name for name, link in self.links().items()}
        return frozenset(
            _host_route(address, values, names)
            for family in (socket.AF_INET, socket.AF_INET6)
            for address, kind, values in self._ours(family)
            if kind == _UNICAST and _RTA_GATEWAY in values
        )

    def set_host_routes(self, routes: Sequence[HostRoute]) -> list[OSError | None]:
        """Make or replace host routes; what became of each."""
        links = self.links()
        known = [route for route in routes if route.interface in links]
        requests = [rt.Request(rt.NEWROUTE, rt.REPLACE, _to_host(route, links)) for route in known]
        done = dict(zip(known, self._channel.change_all(requests), strict=True))
        return [done.get(route, OSError(errno.ENODEV, "No such device")) for route in routes]

    def remove_host_routes(self, routes: Iterable[HostRoute]) -> None:
        """Remove host routes; they may be gone."""
        self._remove([rt.Request(rt.DELROUTE, 0, _route(route.destination, _UNICAST)) for route in routes])

    def resolve(self, far: Address, local: Address | None = None) -> ResolvedRoute | None:
        """How packets to `far` (sent from `local`) leave now; None without a route, or when it is our own."""
        values, kind = self._look_up(far, local, 0)
        index = int.from_bytes(values.get(_RTA_OIF, b""), "little")
        if kind != _UNICAST or not index:
            return None
        matched, kind = self._look_up(far, local, _FIB_MATCH)
        via, prefsrc = values.get(_RTA_GATEWAY), values.get(_RTA_PREFSRC)
        return ResolvedRoute(
            socket.if_indextoname(index),
            ipaddress.ip_address(via) if via else None,
            local or (ipaddress.ip_address(prefsrc) if prefsrc else None),
            # Another family's next hop (RTA_VIA) is left to the kernel, too.
            single=_RTA_MULTIPATH not in matched and 18 not in values,
        )

    def delivery(self, address: Address) -> str | None:
        """The interface that a route to just this address leads to; None for any other route."""
        body, values = self._get(address, None, _FIB_MATCH)
        bits = len(address.packed) * 8
        if not body or body[1] != bits or body[7] != _UNICAST or _RTA_OIF not in values:
            return None
        return socket.if_indextoname(int.from_bytes(values[_RTA_OIF], "little"))

    def set_neighbour(self, index: int, address: Address, link_address: bytes) -> None:
        """Make `address` a neighbour for ever."""
        body = rt.NEIGHBOUR.pack(_family(address), index, _PERMANENT, 0, 0)
        body += rt.attribute(_NDA_DST, address.packed) + rt.attribute(_NDA_LLADDR, link_address)
        self._channel.change(rt.Request(rt.NEWNEIGH, rt.REPLACE, body))

    def remove_neighbour(self, index: int, address: Address) -> None:
        """The inverse; it may be gone."""
        body = rt.NEIGHBOUR.pack(_family(address), index, 0, 0, 0) + rt.attribute(_NDA_DST, address.packed)
        self._remove([rt.Request(rt.DELNEIGH, 0, body)])

    def _filters(self, index: int, hook: Hook) -> Iterator[str]:
        request = rt.FILTER.pack(0, index, 0, PARENTS[hook], 0)
        for body in self._channel.dump(rt.GETTFILTER, request):
            _, _, handle, _, info = rt.FILTER.unpack_from(body)
            options = rt.attributes(body, rt.FILTER.size).get(_TCA_OPTIONS, b"")
            name = rt.attributes(options, 0).get(_TCA_BPF_NAME, b"")
            if handle == FILTER_HANDLE and info >> 16 == PRIORITY and _text(name).startswith(PREFIX):
                yield _text(name).removeprefix(PREFIX)

    def _remove(self, requests: Sequence[rt.Request]) -> None:
        for error in self._channel.change_all(requests):
            if error is not None and error.errno not in _GONE:
                raise error

    def _look_up(self, far: Address, local: Address | None, flags: int) -> tuple[dict[int, bytes], int]:
        body, values = self._get(far, local, flags)
        return values, body[7] if body else 0

    def _get(self, far: Address, local: Address | None, flags: int) -> tuple[bytes, dict[int, bytes]]:
        bits, family = len(far.packed) * 8, _family(far)
        source = bits if local is not None and local.version == far.version else 0
        body = rt.ROUTE.pack(family, bits, source, 0, 0, 0, 0, 0, flags) + rt.attribute(_RTA_DST, far.packed)
        if source and local is not None:
            body += rt.attribute(_RTA_SRC, local.packed)
        try:
            found = self._channel.get(rt.GETROUTE, body)
        except OSError as error:
            if error.errno in _UNROUTABLE or (flags and error.errno in _NO_MATCH):
                return b"", {}
            raise
        return found, rt.attributes(found, rt.ROUTE.size)

    def _ours(self, family: int) -> Iterator[tuple[Address, int, dict[int, bytes]]]:
        table = rt.attribute(_RTA_TABLE, MAIN_TABLE.to_bytes(4, "little"))
        request = rt.ROUTE.pack(family, 0, 0, 0, 0, PROTOCOL, 0, 0, 0) + table
        bits = 32 if family == socket.AF_INET else 128
        for body in self._channel.dump(rt.GETROUTE, request):
            if body[0] == family and body[1] == bits and body[4] == MAIN_TABLE and body[5] == PROTOCOL:
                values = rt.attributes(body, rt.ROUTE.size)
                yield ipaddress.ip_address(values[_RTA_DST]), body[7], values


def _family(address: Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _link(body: bytes) -> tuple[str, Link]:
    _, _, index, flags, _ = rt.LINK.unpack_from(body)
    values = rt.attributes(body, rt.LINK.size)
    kind = rt.attributes(values.get(_IFLA_LINKINFO, b""), 0).get(_INFO_KIND, b"")
    mtu = int.from_bytes(values.get(_IFLA_MTU, b""), "little")
    xdp = rt.attributes(values.get(_IFLA_XDP, b""), 0).get(_XDP_PROGRAM, b"")
    link = Link(
        index,
        mtu,
        _text(kind),
        bool(flags & _IFF_UP),
        int.from_bytes(xdp, "little"),
        _number(values.get(_IFLA_LINK_NETNSID)),
    )
    return _text(values[_IFLA_IFNAME]), link


def _number(value: bytes | None) -> int | None:
    # Negative: the other side's namespace has no id here.
    number = int.from_bytes(value, "little", signed=True) if value else -1
    return number if number >= 0 else None


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode()


def _route(address: Address, kind: int, flags: int = 0) -> bytes:
    bits = len(address.packed) * 8
    head = rt.ROUTE.pack(_family(address), bits, 0, 0, MAIN_TABLE, PROTOCOL, 0, kind, flags)
    return head + rt.attribute(_RTA_DST, address.packed)


def _to_host(route: HostRoute, links: dict[str, Link]) -> bytes:
    mtu = rt.attribute(_RTAX_MTU, route.mtu.to_bytes(4, "little"))
    return (
        _route(route.destination, _UNICAST, _ONLINK)
        + rt.attribute(_RTA_GATEWAY, route.via.packed)
        + rt.attribute(_RTA_OIF, links[route.interface].index.to_bytes(4, "little"))
        + rt.attribute(_RTA_METRICS, mtu)
    )


def _host_route(address: Address, values: dict[int, bytes], names: dict[int, str]) -> HostRoute:
    mtu = rt.attributes(values.get(_RTA_METRICS, b""), 0).get(_RTAX_MTU, b"")
    index = int.from_bytes(values.get(_RTA_OIF, b""), "little")
    via = ipaddress.ip_address(values[_RTA_GATEWAY])
    return HostRoute(address, names.get(index, ""), via, int.from_bytes(mtu, "little"))
