# SPDX-License-Identifier: Apache-2.0
"""The kernel state of the gateway role: what is there, and doing what the plan says. Methods block."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from epic.agent.gateway.delivery import Delivery, forwards6, rules
from epic.agent.gateway.desired import Tunnel
from epic.agent.gateway.plans import plan
from epic.agent.gateway.plans.failures import Failure
from epic.agent.netlink.monitor import Changes, Pending
from epic.agent.netlink.objects import Link, Netlink
from epic.agent.netlink.route_cache import RouteCache, program_route
from epic.agent.netlink.rules import Rules
from epic.agent.settings import UnderlaySettings
from epic.agent.tunnel.endpoints import EndpointKey, batches
from epic.agent.tunnel.underlay import Underlay
from epic.bpf import dataplane as bpf
from epic.bpf.dataplane import Address
from epic.errors import EpicError
from epic.log_rate import LogRate
from epic.model.values.naming import GUE_PORT, INSTANCE_INTERFACE, instance_interface

log = logging.getLogger(__name__)
_warnings = LogRate(log)
_CHECKED_AT_ONCE = 128
"""Tunnels; with so many the kernel's thread is held for some milliseconds."""


class _Made(NamedTuple):
    """A tunnel as it was set, and the interfaces that this rests on."""

    wanted: Tunnel
    tunnel: bpf.Tunnel
    links: tuple[Link | None, ...]


class KernelState(NamedTuple):
    """What there is, but for tunnels and endpoints."""

    links: Mapping[str, int]
    """The interfaces that are up."""
    attached: Mapping[str, plan.Attachment | None]
    delivered: Mapping[Address, int]
    forwards6: bool
    namespaces: Mapping[str, int]
    """The ids of the network namespaces behind interfaces, also of those that are down."""
    gaps: tuple[str, ...]
    """What keeps all gateways from serving."""


class Surplus(NamedTuple):
    """What is on the node though nobody wants it."""

    interfaces: frozenset[str]
    """Of instances: whoever makes them has to remove them."""
    programs: bool
    """Tunnels or filters."""


class GatewayKernel:
    """Tunnels, instances' interfaces, and the delivery to them."""

    def __init__(self, dataplane: bpf.Dataplane, underlay: UnderlaySettings, state: Path) -> None:
        self._dataplane = dataplane
        self._settings = underlay
        self._state = state
        self._netlink = Netlink()
        self._underlay = Underlay(dataplane, self._netlink, underlay, "gateway")
        self._route_cache = RouteCache(self._netlink)
        self._delivery = Delivery()
        self._rules = Rules(rules())
        self._links: Mapping[str, Link] = {}
        self._attached: dict[str, plan.Attachment | None] = {}
        self._ids: set[int] = set()
        self._made: dict[int, _Made] = {}
        self._suspect: dict[int, None] = {}
        self._delivered: dict[Address, int] = {}
        self._rule_gap = ""
        self.pending = Pending()
        self.idle = False
        """The node has left EPIC."""
        self.found: frozenset[str] = frozenset()
        """Interfaces of instances that an earlier agent attached."""
        self.stale: set[int] = set()
        """Tunnels that an earlier agent made, or whose route or instance's interface is another now."""

    @property
    def installed(self) -> Mapping[int, Tunnel]:
        """The tunnels as this agent has set them."""
        return {id_: made.wanted for id_, made in self._made.items()}

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the underlay's interfaces now."""
        return self._underlay.problems

    def start(self) -> None:
        """Load the programs and attach them to the underlay; what was there stays and goes on working."""
        self._dataplane.load()
        self._underlay.forget_others(self._state)
        self.found = frozenset(self._dataplane.instances())
        self._attached = dict.fromkeys(self.found)
        self._follow(self.pending.take(), whole=True)
        self._ids = self._dataplane.tunnel_ids()
        self.stale = set(self._ids)

    def close(self) -> None:
        """Close the sockets; the kernel state stays."""
        self._netlink.close()
        self._delivery.close()
        self._rules.close()

    @property
    def ports(self) -> tuple[int, int]:
        """The senders that messages about our own changes of routes name."""
        return self._netlink.port, self._delivery.port

    def observe(self, whole: bool) -> KernelState:
        """What there is now, but for routes of tunnels: then `check_routes`.

        Unless `whole`, what nobody told of is taken to be as it was left. Underlay interfaces and the routing
        rule are mended on the way.
        """
        changes = self.pending.take()
        if changes or whole or self._underlay.troubled:
            self._follow(changes, whole)
        links = {name: link.index for name, link in self._links.items() if link.up}
        gaps = tuple(gap for gap in (self._underlay.gap, self._rule_gap) if gap)
        namespaces = {n: link.namespace for n, link in self._links.items() if link.namespace is not None}
        delivered = dict(self._delivered)
        return KernelState(links, dict(self._attached), delivered, forwards6(), namespaces, gaps)

    def check_routes(self) -> bool:
        """Find out which of some tunnels are `stale` after what `observe` saw; whether more are left.

        Blocks a bit.
        """
        for id_ in list(islice(self._suspect, _CHECKED_AT_ONCE)):
            made = self._made.get(id_)
            if made is not None and self._is_outdated(made):
                self.stale.add(id_)
            del self._suspect[id_]
        return bool(self._suspect)

    def _is_outdated(self, made: _Made) -> bool:
        return self._links_of(made.tunnel) != made.links or self._bpf_tunnel(made.wanted) != made.tunnel

    def endpoints(self, keys: Collection[EndpointKey] | None = None) -> dict[EndpointKey, bpf.Endpoint]:
        """The endpoints that the programs have, of these or of all."""
        return self._dataplane.endpoints(keys)

    def tunnels(self, ids: Iterable[int]) -> dict[int, Tunnel | None]:
        """Those of these tunnels that are there, as they were set; None for those in `stale`."""
        return {id_: None if id_ in self.stale else self._made[id_].wanted for id_ in ids if id_ in self._ids}

    def move(self, ids: Iterable[int]) -> None:
        """The far ends of these tunnels are elsewhere: find the route there at once."""
        for id_ in ids:
            made = self._made.get(id_)
            if made is None:
                continue
            try:
                tunnel = self._bpf_tunnel(made.wanted)
                if tunnel != made.tunnel:
                    self._set_tunnel(made.wanted, tunnel)
            except (EpicError, OSError) as error:
                _warnings.warning("the route of tunnel %d cannot be set: %s", id_, error)
                self.stale.add(id_)

    def apply(self, actions: Iterable[plan.Action]) -> list[Failure]:
        """Do what the plan says, in order; returns what failed."""
        failed: list[Failure] = []
        for action in actions:
            try:
                self._apply(action)
            except EpicError as error:
                failed.append(Failure(action, str(error)))
            except Exception as error:
                # One gateway's trouble must not hold up the others; a later round tries again.
                log.debug("cannot %s", action, exc_info=error)
                failed.append(Failure(action, repr(error)))
        return failed

    def release_old_programs(self) -> None:
        """All is as it should be: programs of an older version that still run are needed no more."""
        self._dataplane.settle()

    def surplus(self, interfaces: Collection[str], tunnels: Collection[int]) -> Surplus:
        """What there is beside these."""
        found = {name for name in self._links if INSTANCE_INTERFACE.fullmatch(name)} - set(interfaces)
        return Surplus(
            interfaces=frozenset(found),
            programs=bool(self._ids - set(tunnels)) or bool(self._attached.keys() - set(interfaces)),
        )

    def leave(self) -> None:
        """Remove the programs and all that they have; nothing is done from now on."""
        self.idle = True
        self._dataplane.unload()

    def _follow(self, changes: Changes, whole: bool) -> None:
        everything = whole or changes.lost
        if everything or changes.rules:
            self._mend_rules()
        before, self._links = self._links, self._netlink.links()
        ways = changes.links | changes.addresses | changes.routes
        # No far end is behind an instance's interface: one that comes says nothing of the others' tunnels.
        elsewhere = (ways | changes.filters) - _indexes_of_instances(before, self._links)
        if everything or elsewhere or changes.rules or self._underlay.troubled:
            self._underlay.follow(self._links)
        self._look_at_filters(None if everything else changes.filters | changes.links)
        if everything or changes.links or changes.ours:
            # An interface that goes down loses routes without a word.
            self._delivered = self._delivery.routes()
        if ways & elsewhere or changes.rules or changes.lost:
            self._route_cache.forget()
            self._suspect.update(dict.fromkeys(self._made))
        elif changed := {name for name, _ in before.items() ^ self._links.items()}:
            rest = (id_ for id_, made in self._made.items() if made.tunnel.interface in changed)
            self._suspect.update(dict.fromkeys(rest))

    def _look_at_filters(self, indexes: Collection[int] | None) -> None:
        """Find out whose filter is gone, among these interfaces or all."""
        for name, attached in self._attached.items():
            link = self._links.get(name)
            if attached is None or link is None or (indexes is not None and link.index not in indexes):
                continue
            if not self._netlink.filters(link.index):
                log.warning("somebody removed the filter of %s: attaching it", name)
                self._attached[name] = None

    def _mend_rules(self) -> None:
        try:
            self._rules.ensure()
        except OSError as error:
            self._rule_gap = f"the routing rules cannot be mended: {error}"
        else:
            self._rule_gap = ""

    def _apply(self, action: plan.Action) -> None:
        match action:
            case plan.AttachInstance(instance, link):
                self._dataplane.attach_instance(
                    instance.interface, instance.inside, instance.inside6, instance.publics
                )
                self._attached[instance.interface] = plan.attachment(instance, link)
            case plan.DetachInstance(interface):
                self._dataplane.detach_instance(interface)
                self._attached.pop(interface, None)
            case plan.SetTunnel(tunnel):
                self._set_tunnel(tunnel, self._bpf_tunnel(tunnel))
            case plan.DeleteTunnel(id_):
                self._dataplane.delete_tunnel(id_)
                self._ids.discard(id_)
                self._made.pop(id_, None)
                self.stale.discard(id_)
            case plan.SetEndpoints(_, endpoints):
                for batch in batches(endpoints):
                    self._dataplane.set_endpoints(batch)
            case plan.DeleteEndpoints(keys):
                self._dataplane.delete_endpoints(keys)
            case plan.DeliverTo(_, link, addresses):
                self._delivery.deliver(addresses, link)
                self._delivered.update(dict.fromkeys(addresses, link))

    def _set_tunnel(self, wanted: Tunnel, tunnel: bpf.Tunnel) -> None:
        links = self._links_of(tunnel)
        self._dataplane.set_tunnel(tunnel)
        self._ids.add(tunnel.id)
        self._made[tunnel.id] = _Made(wanted, tunnel, links)
        self.stale.discard(tunnel.id)

    def _links_of(self, tunnel: bpf.Tunnel) -> tuple[Link | None, ...]:
        names = (tunnel.underlay, tunnel.interface, tunnel.route.interface if tunnel.route else None)
        return tuple(self._links.get(name) if name else None for name in names)

    def _bpf_tunnel(self, tunnel: Tunnel) -> bpf.Tunnel:
        peer = self._dataplane.peer(tunnel.id)
        resolved = self._route_cache.resolve(peer.address, peer.local) if peer is not None else None
        return bpf.Tunnel(
            id=tunnel.id,
            service=tunnel.service,
            inside=tunnel.inside,
            inside6=tunnel.inside6,
            local=None,
            remote=tunnel.declared,
            remote_port=GUE_PORT,
            underlay=resolved.interface if resolved is not None else self._usual_underlay(),
            interface=instance_interface(tunnel.gateway, tunnel.inside),
            keys=tunnel.keys,
            active=tunnel.active,
            route=program_route(peer.address, resolved) if peer is not None else None,
        )

    def _usual_underlay(self) -> str:
        return next(iter(self._underlay.links), self._settings.names[0])


def _indexes_of_instances(*links: Mapping[str, Link]) -> set[int]:
    """The indexes of instances' interfaces among these."""
    return {
        link.index for found in links for name, link in found.items() if INSTANCE_INTERFACE.fullmatch(name)
    }
