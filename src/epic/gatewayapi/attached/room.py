# SPDX-License-Identifier: Apache-2.0
"""The room that a gateway has for its routes: they are taken one by one, and each costs what it adds.

None of it depends on which Services exist, so that endpoints that come and go change nothing of it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from epic.gatewayapi.attached.needs import Load, Need
from epic.gatewayapi.attached.sizes import LARGEST, host_size
from epic.gatewayapi.hostnames import covering, most_specific
from epic.gatewayapi.listeners import Served
from epic.gatewayapi.routing import Cluster

MOST_ENTRIES = 100_000
"""Matches of a gateway's routes, counted for each listener and hostname that they are for."""

MOST_PORTS_OF_SERVICE = 32
"""That a gateway's routes may name: each is a cluster with all of the Service's endpoints."""

MOST_CLUSTERS = 5_000
"""Ports of Services that a gateway's routes may name in all: each instance has its own of these clusters."""

MOST_LOOKED_AT = 400_000
"""Labels of routes' hostnames, counted for each listener, that are looked at, whether routes fit or not."""

SMALL = 512
"""A route with so many is looked at in any case: others' large ones do not keep it from its place."""

_ADVICE = "use fewer hostnames or matches, in it or in older routes, or another gateway"
_NOT_LOOKED_AT = f"it and older routes have so many hostnames that it is not looked at: {_ADVICE}"


class Demand(NamedTuple):
    """What a route asks for: by listeners that take it, with its hostnames on one."""

    listeners: frozenset[str]
    hostnames: Callable[[Served], Collection[str]]
    need: Need


def surely_fit(served: Iterable[Served], needs: Iterable[Need]) -> bool:
    """Whether there is room for routes that need this, wherever they attach, without a look at how.

    So it mostly is, and it costs little; if it is not so there may be room all the same.
    """
    hosts = narrow = wide = Load(0, 0)
    clusters: set[Cluster] = set()
    for need in needs:
        clusters.update(need.clusters)
        hosts = _sum((hosts, need.hosts))
        if need.is_wide:
            wide = _sum((wide, need.load))
        else:
            narrow = _sum((narrow, _times(need.hosts.entries, need.load)))
    on_ports = [_most(own, hosts, narrow, wide) for own in _hostnames_by_port(served)]
    of_services = Counter(cluster.service for cluster in clusters)
    return (
        sum(most.entries for most in on_ports) <= MOST_ENTRIES
        and max((most.size for most in on_ports), default=0) <= LARGEST
        and len(clusters) <= MOST_CLUSTERS
        and max(of_services.values(), default=0) <= MOST_PORTS_OF_SERVICE
    )


def _hostnames_by_port(served: Iterable[Served]) -> Collection[Sequence[str]]:
    found: defaultdict[int, list[str]] = defaultdict(list)
    for listener in served:
        if listener.protocol == "HTTP":
            found[listener.port].append(listener.hostname)
    return found.values()


def _most(own: Sequence[str], hosts: Load, narrow: Load, wide: Load) -> Load:
    """What a port with listeners of these hostnames has at most if all routes are on each of them.

    `hosts` are the routes' own virtual hosts, `narrow` is what routes are in these alone, and `wide` what
    routes are in each virtual host.
    """
    all_hosts = _sum((Load(len(own), sum(map(host_size, own))), _times(len(own), hosts)))
    return _sum((all_hosts, _times(len(own), narrow), _times(all_hosts.entries, wide)))


class Room:
    """What is left on a gateway with these listeners."""

    def __init__(self, served: Iterable[Served]) -> None:
        self._clusters: set[Cluster] = set()
        self._of_service: Counter[str] = Counter()
        by_port: defaultdict[int, list[Served]] = defaultdict(list)
        for listener in served:
            if listener.protocol == "HTTP":
                by_port[listener.port].append(listener)
        self._ports = [_Port(number, listeners) for number, listeners in sorted(by_port.items())]
        self._entries = sum(port.used.entries for port in self._ports)
        self._looked_at = 0

    def take(self, demand: Demand) -> str:
        """Take in a route; returns why it does not fit, and then everything is as it was."""
        clusters = frozenset(demand.need.clusters)
        fault = self._cluster_fault(clusters) or self._host_fault(demand)
        if not fault:
            new = clusters - self._clusters
            self._clusters |= new
            self._of_service.update(cluster.service for cluster in new)
        return fault

    def _cluster_fault(self, clusters: frozenset[Cluster]) -> str:
        new = clusters - self._clusters
        total = len(self._clusters) + len(new)
        if new and total > MOST_CLUSTERS:
            return (
                f"with it the gateway's routes would name {total} ports of Services in all; "
                f"at most {MOST_CLUSTERS} are possible"
            )
        for service, more in sorted(Counter(cluster.service for cluster in new).items()):
            count = self._of_service[service] + more
            if count > MOST_PORTS_OF_SERVICE:
                return (
                    f"with it the gateway's routes would name {count} ports of Service {service!r}; "
                    f"at most {MOST_PORTS_OF_SERVICE} are possible"
                )
        return ""

    def _host_fault(self, demand: Demand) -> str:
        labels = len(demand.listeners) * demand.need.labels
        self._looked_at += labels
        if self._looked_at > MOST_LOOKED_AT and labels > SMALL and demand.need.load.entries:
            return _NOT_LOOKED_AT
        found: list[tuple[_Port, list[_Added], Load]] = []
        entries = 0
        for port in self._ports:
            added = port.added(demand)
            if added:
                more = _sum(each.more for each in added)
                entries += more.entries
                found.append((port, added, more))
        fault = self._fault(found, entries)
        if not fault:
            self._entries += entries
            for port, added, more in found:
                port.take(added, demand.need.load, more)
        return fault

    def _fault(self, found: Iterable[tuple[_Port, list[_Added], Load]], entries: int) -> str:
        total = self._entries + entries
        if entries and total > MOST_ENTRIES:
            return (
                f"with it the gateway's routes would have {total} matches, counted for each listener and "
                f"hostname that they are for; at most {MOST_ENTRIES} are possible: {_ADVICE}"
            )
        for port, _, more in found:
            total = port.used.size + more.size
            if total > LARGEST:
                return (
                    f"with it the virtual hosts of port {port.number} would have {total} bytes; "
                    f"at most {LARGEST} are possible: {_ADVICE}"
                )
        return ""


class _Added(NamedTuple):
    """What a route adds to a listener: itself under its hostnames, and new ones among these."""

    listener: _Listener
    new: Sequence[str]
    widest: Sequence[str]
    """Those of its hostnames that none of the others covers: a virtual host is below one of them at most."""
    more: Load


class _Port:
    """The HTTP listeners of a port."""

    def __init__(self, number: int, listeners: Sequence[Served]) -> None:
        self.number = number
        self._owners = {listener.hostname for listener in listeners}
        self._owner_of: dict[str, str | None] = {}
        self._listeners = [_Listener(listener) for listener in listeners]
        self.used = _sum(listener.empty for listener in self._listeners)

    def added(self, demand: Demand) -> list[_Added]:
        """What the route would add to each of the listeners that take it."""
        return [
            listener.added(self._owned(listener.served, demand), demand.need.load)
            for listener in self._listeners
            if listener.served.name in demand.listeners
        ]

    def take(self, added: Iterable[_Added], load: Load, more: Load) -> None:
        """Take it."""
        for each in added:
            each.listener.take(each, load)
        self.used = _sum((self.used, more))

    def _owned(self, listener: Served, demand: Demand) -> list[str]:
        """Its hostnames on the listener but for those whose requests are another listener's."""
        found = []
        for hostname in demand.hostnames(listener):
            if hostname not in self._owner_of:
                self._owner_of[hostname] = most_specific(self._owners, hostname)
            if self._owner_of[hostname] == listener.hostname:
                found.append(hostname)
        return found


class _Listener:
    """The virtual hosts of a listener, which has one of its own hostname in any case."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.empty = Load(1, host_size(served.hostname))
        self._hosts: set[str] = set()
        self._below: Counter[str] = Counter()
        self._load: defaultdict[str, Load] = defaultdict(lambda: Load(0, 0))
        self._add_host(served.hostname)

    def added(self, hostnames: Sequence[str], load: Load) -> _Added:
        """What a route with these hostnames would add."""
        new = [hostname for hostname in hostnames if hostname not in self._hosts]
        widest = _widest(tuple(hostnames))
        times = sum(self._below[hostname] for hostname in widest) + len(new)
        inherited = [self._load[wide] for host in new for wide in covering(host) if wide in self._load]
        hosts = Load(len(new), sum(map(host_size, new)))
        return _Added(self, new, widest, _sum((hosts, _times(times, load), *inherited)))

    def take(self, added: _Added, load: Load) -> None:
        """Take in a route that adds this."""
        for hostname in added.new:
            self._add_host(hostname)
        for hostname in added.widest:
            self._load[hostname] = _sum((self._load[hostname], load))

    def _add_host(self, hostname: str) -> None:
        self._hosts.add(hostname)
        self._below.update(covering(hostname))


@lru_cache(maxsize=64)
def _widest(hostnames: tuple[str, ...]) -> Sequence[str]:
    """Those that none of the others covers; a route has the same ones on many listeners."""
    own = set(hostnames)
    return [hostname for hostname in hostnames if sum(wide in own for wide in covering(hostname)) == 1]


def _sum(loads: Iterable[Load]) -> Load:
    entries = size = 0
    for more in loads:
        entries += more[0]
        size += more[1]
    return Load(entries, size)


def _times(number: int, load: Load) -> Load:
    return Load(number * load.entries, number * load.size)
