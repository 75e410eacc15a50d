"""Links and routes by netlink. Methods block; an object belongs to one thread."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from pyroute2 import IPRoute, NetlinkError

PROTOCOL = 50
"""Routes with this protocol number are EPIC's."""

MAIN_TABLE = 254
_UNICAST = 1
_BLACKHOLE = 6
_RTMGRP_LINK = 1
_RTMGRP_IPV4_ROUTE = 0x40
_RECEIVE_BYTES = 1 << 16


@dataclass(frozen=True)
class HostRoute:
    """A route to one address by a next hop on the underlay."""

    destination: IPv4Address
    interface: str
    via: IPv4Address
    mtu: int


@dataclass(frozen=True)
class NextHop:
    """Where packets to an address leave; `via` is the address itself when it is on the link."""

    interface: str
    via: IPv4Address


class Netlink:
    """A netlink socket in the network namespace of the process."""

    def __init__(self) -> None:
        self._ipr: Any = IPRoute()

    def close(self) -> None:
        """Close the socket."""
        self._ipr.close()

    def links(self) -> dict[str, int]:
        """Index by name of all interfaces."""
        return {link.get_attr("IFLA_IFNAME"): int(link["index"]) for link in self._ipr.get_links()}

    def mtu(self, interface: str) -> int:
        """The interface's MTU."""
        return int(self._ipr.get_links(ifname=interface)[0].get_attr("IFLA_MTU"))

    def identity(self, interface: str) -> tuple[int, int] | None:
        """Index and MTU of an interface; None without one of that name."""
        index = self.links().get(interface)
        return None if index is None else (index, self.mtu(interface))

    def flags(self) -> frozenset[IPv4Address]:
        """Addresses that have a flag route."""
        return frozenset(address for address, route in self._ours() if route["type"] == _BLACKHOLE)

    def add_flag(self, address: IPv4Address) -> None:
        """Make the flag route of `address`, which the routing daemon announces; there may be one."""
        try:
            self._route("add", dst=f"{address}/32", type="blackhole")
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise

    def remove_flag(self, address: IPv4Address) -> None:
        """Remove the flag route of `address`; there need be none."""
        self._remove(dst=f"{address}/32", type="blackhole")

    def host_routes(self) -> frozenset[HostRoute]:
        """The host routes that we made."""
        names = {index: name for name, index in self.links().items()}
        return frozenset(
            _host_route(address, route, names)
            for address, route in self._ours()
            if route["type"] == _UNICAST and route.get_attr("RTA_GATEWAY")
        )

    def set_host_route(self, route: HostRoute) -> None:
        """Make or replace a host route."""
        self._route(
            "replace",
            dst=f"{route.destination}/32",
            gateway=str(route.via),
            oif=self.links()[route.interface],
            metrics={"mtu": route.mtu},
        )

    def remove_host_route(self, route: HostRoute) -> None:
        """Remove a host route; it may be gone."""
        self._remove(dst=f"{route.destination}/32")

    def next_hop(self, address: IPv4Address) -> NextHop | None:
        """How packets to `address` leave now; None without a route."""
        try:
            route = self._ipr.route("get", dst=str(address))[0]
        except NetlinkError as error:
            if error.code in {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL}:
                return None
            raise
        names = {index: name for name, index in self.links().items()}
        via = route.get_attr("RTA_GATEWAY")
        return NextHop(names[route.get_attr("RTA_OIF")], IPv4Address(via) if via else address)

    def _route(self, verb: str, **values: object) -> None:
        self._ipr.route(verb, proto=PROTOCOL, table=MAIN_TABLE, **values)

    def _remove(self, **values: object) -> None:
        try:
            self._route("del", **values)
        except NetlinkError as error:
            if error.code not in {errno.ESRCH, errno.ENODEV}:
                raise

    def _ours(self) -> Iterator[tuple[IPv4Address, Any]]:
        for route in self._ipr.get_routes(family=socket.AF_INET, table=MAIN_TABLE, proto=PROTOCOL):
            if route["proto"] == PROTOCOL and route["dst_len"] == 32:
                yield IPv4Address(route.get_attr("RTA_DST")), route


def _host_route(address: IPv4Address, route: Any, names: dict[int, str]) -> HostRoute:
    metrics = route.get_attr("RTA_METRICS")
    return HostRoute(
        destination=address,
        interface=names.get(route.get_attr("RTA_OIF"), ""),
        via=IPv4Address(route.get_attr("RTA_GATEWAY")),
        mtu=int(metrics.get_attr("RTAX_MTU") or 0) if metrics is not None else 0,
    )


def watch(changed: Callable[[], None], *, routes: bool = False) -> Callable[[], None]:
    """Call `changed` in the running loop whenever interfaces (or routes) change; the result ends it.

    The messages are not read for what they say: `changed` is to look at everything anew.
    """
    loop = asyncio.get_running_loop()
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    channel.bind((0, _RTMGRP_LINK | (_RTMGRP_IPV4_ROUTE if routes else 0)))

    def readable() -> None:
        try:
            while channel.recv(_RECEIVE_BYTES):
                pass
        except BlockingIOError:
            pass
        except OSError as error:
            # ENOBUFS: messages were lost, which tells as much as having them.
            if error.errno != errno.ENOBUFS:
                raise
        changed()

    loop.add_reader(channel, readable)

    def stop() -> None:
        loop.remove_reader(channel)
        channel.close()

    return stop
