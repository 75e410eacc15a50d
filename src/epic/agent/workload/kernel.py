# SPDX-License-Identifier: Apache-2.0
"""The kernel state of the workload role. Methods block."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from epic.agent.netlink.monitor import Changes, Pending
from epic.agent.netlink.objects import HostRoute, Link, Netlink, ResolvedRoute
from epic.agent.netlink.route_cache import RouteCache
from epic.agent.netlink.rules import Rules
from epic.agent.runtime.log_once import LogOnce
from epic.agent.settings import WorkloadUnderlay
from epic.agent.tunnel.endpoints import EndpointKey, batches
from epic.agent.tunnel.underlay import Underlay
from epic.agent.workload import plan as planning
from epic.agent.workload.plan import DUMMIES, DUMMY_LINK_ADDRESS, WorkloadTunnel
from epic.agent.workload.pods import Pods
from epic.bpf import dataplane as bpf
from epic.bpf.dataplane import Address

log = logging.getLogger(__name__)


class WorkloadKernel:
    """Tunnels, endpoints and the routes of replies."""

    def __init__(self, dataplane: bpf.Dataplane, underlay: WorkloadUnderlay, state: Path) -> None:
        self._dataplane = dataplane
        self._settings = underlay
        self._state = state
        self._netlink = Netlink()
        self._underlay = Underlay(dataplane, self._netlink, underlay, "workload")
        self._rules = Rules()
        self._route_cache = RouteCache(self._netlink)
        self._pods = Pods(dataplane, self._netlink)
        self._links: Mapping[str, Link] = {}
        self._set: dict[int, WorkloadTunnel] = {}
        self._ends: dict[int, bpf.Tunnel | None] = {}
        self._endpoints: dict[EndpointKey, bpf.Endpoint] | None = None
        self._routes: dict[Address, HostRoute] | None = None
        self._neighbours: set[tuple[int, int]] = set()
        self._unneeded: set[tuple[int, int]] = set()
        self._troubles = LogOnce(log)
        self._failed: set[str] = set()
        self.pending = Pending()
        self.guarded: frozenset[int] = frozenset()
        """Indexes of the interfaces whose filters are a wall."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong now, a line each."""
        return (*self._underlay.problems, *self._troubles.problems)

    @property
    def port(self) -> int:
        """The sender that messages about our own routes name."""
        return self._netlink.port

    @property
    def installed(self) -> Mapping[int, WorkloadTunnel]:
        """The tunnels as this agent has set them."""
        return self._set

    @property
    def places(self) -> dict[int, Address | None]:
        """Our address in each tunnel."""
        return {id_: end.local for id_, end in self._ends.items() if end is not None}

    def start(self) -> None:
        """Load the programs and attach them; what was there goes on working."""
        self._dataplane.load()
        self._underlay.forget_others(self._state)
        self._follow(self.pending.take(), whole=True)
        self._ends = dict.fromkeys(self._dataplane.tunnel_ids())
        self._endpoints = self._dataplane.endpoints()
        self._pods.start(self._dataplane.pods())

    def close(self) -> None:
        """Close the sockets; the kernel state stays."""
        self._netlink.close()
        self._rules.close()

    def address(self) -> Address | None:
        """Where this node is: as the settings say, else where its first tunnel ends, else the underlay's."""
        if self._settings.address is not None:
            return self._settings.address
        for _, end in sorted(self._ends.items()):
            if end is not None and end.local is not None:
                return end.local
        return self._underlay.address()

    def follow(self, whole: bool) -> bool:
        """Take in what changed in the kernel; False when nothing did.

        `whole`: look at what others can take away, also where nobody told of a change.
        """
        changes = self.pending.take()
        if whole:
            self._dataplane.forget_insides()
        if not changes and not whole and not self._underlay.troubled:
            return False
        return self._follow(changes, whole) or bool(changes) or self._underlay.troubled

    def observe(self) -> planning.Observed:
        """What there is now."""
        if self._endpoints is None:
            self._endpoints = self._dataplane.endpoints()
        if self._routes is None:
            self._routes = {route.destination: route for route in self._netlink.host_routes()}
        return planning.Observed(self._ends, self._endpoints, frozenset(self._routes.values()))

    def wanted(self, listed: Mapping[int, WorkloadTunnel], direct: Collection[int]) -> planning.DesiredState:
        """What there should be, as the kernel reaches EPIC nodes and endpoints now."""
        links = self._underlay.links
        found = {t.epic_address: self._resolve(t.epic_address) for t in listed.values()}
        usable = {far: r for far, r in found.items() if r is not None and r.interface in links}
        self._complain(found, usable)
        ends = planning.ends(listed.values(), usable, self._settings, direct)
        pods: dict[Address, str] = {}
        if self._settings.delivery == "pods":
            pods = self._pods.find({a for t in listed.values() for a in t.endpoints}, self._links)
        mtus = {name: link.mtu for name, link in links.items()}
        routes = frozenset(planning.routes(listed.values(), ends, mtus))
        return planning.DesiredState(listed, ends, planning.endpoints(listed.values(), pods), routes)

    def apply(self, plan: planning.Plan, wanted: planning.DesiredState) -> bool:
        """Do what the plan says, in order; False when something failed, which is in the log."""
        done = [
            self._try(self._remove_routes, plan.remove_routes),
            self._try(self._change_endpoints, {}, plan.delete_endpoints),
            *(self._try(self._delete_tunnel, id_) for id_ in plan.delete_tunnels),
            *(self._try(self._set_tunnel, end, wanted.tunnels[end.id]) for end in plan.set_tunnels),
            self._try(self._add_endpoints, plan.set_endpoints),
            self._try(self._set_neighbours, wanted.routes),
            self._try(self._set_routes, plan.set_routes),
            self._try(self._tidy),
        ]
        if all(done):
            for call in self._failed:
                self._troubles.report(call, "")
            self._failed.clear()
        # What else changed of a tunnel concerns only us.
        self._set.update({id_: t for id_, t in wanted.tunnels.items() if id_ in self._set})
        return all(done)

    def release_old_programs(self) -> None:
        """All is as it should be: programs of an older version that still run are needed no more."""
        self._dataplane.settle()

    def _follow(self, changes: Changes, whole: bool) -> bool:
        """Returns whether anything is not as it was left."""
        if whole or changes.lost or changes.rules:
            # Before the routing table is asked for anything.
            self._mend_rules()
        self._links = self._netlink.links()
        ours = self._underlay.indexes
        changed = self._underlay.follow(self._links)
        self.guarded = self._underlay.indexes
        if changes.links or changes.addresses or changes.routes or changes.rules or changes.lost:
            self._route_cache.forget()
            self._pods.forget()
        if changed:
            self._ends = {
                id_: None if end is None or end.underlay in changed else end
                for id_, end in self._ends.items()
            }
        odd = bool(changed)
        if changes.ours or changes.lost or changes.links & (ours | self._underlay.indexes):
            # An interface that goes down loses routes and neighbours without a word.
            self._routes = None
            self._neighbours.clear()
        elif whole:
            odd |= self._missing_routes()
            self._renew_neighbours()
        if self._pods.check(self._links, everywhere=whole or changes.lost, filters=changes.filters):
            self._endpoints = None
            odd = True
        return odd

    def _mend_rules(self) -> None:
        try:
            self._rules.ensure()
        except OSError as error:
            self._troubles.report("rules", f"the routing rules cannot be mended: {error}")
        else:
            self._troubles.report("rules", "")

    def _missing_routes(self) -> bool:
        there = {route.destination: route for route in self._netlink.host_routes()}
        if there == self._routes:
            return False
        self._routes = there
        return True

    def _renew_neighbours(self) -> None:
        # Setting the few there are costs less than looking for them.
        for index, version in tuple(self._neighbours):
            try:
                self._netlink.set_neighbour(index, DUMMIES[version], DUMMY_LINK_ADDRESS)
            except OSError:
                self._neighbours.discard((index, version))

    def _resolve(self, far: Address) -> ResolvedRoute | None:
        own = self._settings.address
        return self._route_cache.resolve(far, own if own is not None and own.version == far.version else None)

    def _set_tunnel(self, end: bpf.Tunnel, tunnel: WorkloadTunnel) -> None:
        self._dataplane.set_tunnel(end)
        self._ends[end.id] = end
        self._set[end.id] = tunnel

    def _delete_tunnel(self, id_: int) -> None:
        self._dataplane.delete_tunnel(id_)
        self._ends.pop(id_, None)
        self._set.pop(id_, None)

    def _add_endpoints(self, endpoints: Mapping[EndpointKey, bpf.Endpoint]) -> None:
        # Those of a tunnel that could not be set wait with it.
        self._change_endpoints({key: e for key, e in endpoints.items() if e.tunnel in self._ends}, ())

    def _change_endpoints(
        self, add: Mapping[EndpointKey, bpf.Endpoint], delete: Collection[EndpointKey]
    ) -> None:
        if not add and not delete:
            return
        # What a call that fails leaves behind must be looked at.
        known, self._endpoints = self._endpoints, None
        self._dataplane.delete_endpoints(delete)
        for batch in batches(add):
            self._dataplane.set_endpoints(batch)
        if known is not None:
            for key in delete:
                known.pop(key, None)
            known.update(add)
            self._endpoints = known

    def _remove_routes(self, routes: Collection[HostRoute]) -> None:
        known, self._routes = self._routes, None
        self._netlink.remove_host_routes(routes)
        if known is not None:
            for route in routes:
                known.pop(route.destination, None)
            self._routes = known

    def _set_routes(self, routes: Sequence[HostRoute]) -> None:
        errors = self._netlink.set_host_routes(routes)
        if self._routes is not None:
            made = zip(routes, errors, strict=True)
            self._routes.update({route.destination: route for route, error in made if error is None})
        for error in errors:
            if error is not None:
                raise error

    def _set_neighbours(self, routes: Iterable[HostRoute]) -> None:
        for name, version in {(route.interface, route.via.version) for route in routes}:
            key = self._links[name].index, version
            if key not in self._neighbours:
                self._netlink.set_neighbour(key[0], DUMMIES[version], DUMMY_LINK_ADDRESS)
                self._neighbours.add(key)
                self._unneeded.discard(key)

    def _tidy(self) -> None:
        """Remove what nothing rests on any more."""
        routes = (self._routes or {}).values()
        named = {(route.interface, route.via.version) for route in routes}
        used = {(self._links[name].index, version) for name, version in named if name in self._links}
        every = {(index, version) for index in self._underlay.indexes for version in DUMMIES}
        for index, version in every - used - self._unneeded:
            with suppress(OSError):
                self._netlink.remove_neighbour(index, DUMMIES[version])
        self._unneeded = every - used
        self._neighbours &= used
        if self._pods.attached and self._endpoints is not None:
            self._pods.release({e.interface for e in self._endpoints.values() if e.interface is not None})

    def _try(self, call: Callable[..., None], *arguments: object) -> bool:
        try:
            call(*arguments)
        except Exception as error:
            # One tunnel's trouble must not hold up the others; the next round tries again. The arguments are
            # not logged: they may hold keys.
            self._failed.add(call.__name__)
            text = f"{call.__name__.strip('_').replace('_', ' ')} failed: {error}"
            self._troubles.report(call.__name__, text)
            return False
        return True

    def _complain(
        self, found: Mapping[Address, ResolvedRoute | None], usable: Mapping[Address, ResolvedRoute]
    ) -> None:
        lost = ", ".join(sorted(str(far) for far in found.keys() - usable.keys()))
        names = ", ".join(self._settings.names)
        text = f"no route to {lost} by {names}: their tunnels cannot work"
        self._troubles.report("route", text if lost else "")
