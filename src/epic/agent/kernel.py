"""The kernel state of the gateway role: what is there, and doing what the plan says. Methods block."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from epic.agent import plan
from epic.agent.changes import Changes, Pending
from epic.agent.desired import Desired, Element, EndpointKey, Tunnel
from epic.agent.netlink import Link, Netlink
from epic.agent.nft import PortSet
from epic.agent.settings import UnderlaySettings
from epic.agent.underlay import Underlay
from epic.agent.ways import Ways, route
from epic.bpf import dataplane as bpf
from epic.errors import EpicError
from epic.model.naming import GUE_PORT, instance_interface

log = logging.getLogger(__name__)

_UNKNOWN_LINK = 0
_PART = 4096


def parts(endpoints: Mapping[EndpointKey, bpf.Endpoint]) -> Iterator[dict[EndpointKey, bpf.Endpoint]]:
    """A few thousand at a time, for each of them takes room while it is set."""
    items = iter(endpoints.items())
    while part := dict(islice(items, _PART)):
        yield part


class _Made(NamedTuple):
    """A tunnel as it was set, and the interfaces that this rests on."""

    wanted: Tunnel
    tunnel: bpf.Tunnel
    links: tuple[Link | None, ...]


class GatewayKernel:
    """Tunnels, instances' interfaces and open ports of this node."""

    def __init__(self, dataplane: bpf.Dataplane, underlay: UnderlaySettings, state: Path) -> None:
        self._dataplane = dataplane
        self._settings = underlay
        self._state = state
        self._netlink = Netlink()
        self._underlay = Underlay(dataplane, self._netlink, underlay, "gateway")
        self._ways = Ways(self._netlink)
        self._ports = PortSet()
        self._links: Mapping[str, Link] = {}
        self._attached: dict[str, int] = {}
        self._ids: set[int] = set()
        self._made: dict[int, _Made] = {}
        self._stale: set[int] = set()
        self._endpoints: dict[EndpointKey, bpf.Endpoint] | None = None
        self._elements: frozenset[Element] = frozenset()
        self.pending = Pending()
        self.revision = 0
        """Rises with each change of what `observe` shows."""

    @property
    def installed(self) -> Mapping[int, Tunnel]:
        """The tunnels as this agent has set them."""
        return {id_: made.wanted for id_, made in self._made.items()}

    def start(self) -> None:
        """Load the programs and attach them to the underlay; what was there stays and goes on working."""
        self._dataplane.load()
        self._underlay.forget_others(self._state)
        self._follow(self.pending.take())
        self._attached = dict.fromkeys(self._dataplane.instances(), _UNKNOWN_LINK)
        self._ids = self._dataplane.tunnel_ids()

    def close(self) -> None:
        """Close the sockets; the kernel state stays."""
        self._netlink.close()

    def observe(self, wanted: Desired) -> plan.Observed:
        """What there is now."""
        changes = self.pending.take()
        if changes or self._underlay.troubled:
            self._follow(changes)
        if self._endpoints is None:
            found = self._dataplane.endpoints()
            # Keys and values are many: those that are wanted anyway are kept once.
            shared = {key: e for key, e in wanted.endpoints.items() if found.get(key) == e}
            self._endpoints = shared | {key: e for key, e in found.items() if key not in shared}
            self.revision += 1
        before, self._elements = self._elements, self._ports.elements()
        self.revision += before != self._elements
        return plan.Observed(
            links={name: link.index for name, link in self._links.items()},
            attached=dict(self._attached),
            tunnels={id_: self._current(id_) for id_ in self._ids},
            endpoints=self._endpoints,
            elements=self._elements,
        )

    def move(self, ids: Iterable[int]) -> None:
        """The far ends of these tunnels are elsewhere: find the way there at once."""
        for id_ in ids:
            made = self._made.get(id_)
            if made is None:
                continue
            try:
                tunnel = self._bpf_tunnel(made.wanted)
                if tunnel != made.tunnel:
                    self._set_tunnel(made.wanted, tunnel)
            except (EpicError, OSError) as error:
                log.error("the way of tunnel %d cannot be set: %s", id_, error)
                self._stale.add(id_)
                self.revision += 1

    def apply(self, actions: Iterable[plan.Action]) -> list[plan.Action]:
        """Do what the plan says, in order; returns what failed, which is in the log."""
        failed: list[plan.Action] = []
        for action in actions:
            self.revision += 1
            try:
                self._apply(action)
            except EpicError as error:
                log.warning("cannot do %s: %s", action, error)
                failed.append(action)
            except Exception:
                # One gateway's trouble must not hold up the others; the next round tries again.
                log.exception("cannot do %s", action)
                failed.append(action)
        return failed

    def settle(self) -> None:
        """All is as it should be: programs of an older version that still run are needed no more."""
        if self._dataplane.due:
            self._dataplane.take_over()
            log.info("the tunnel's programs are replaced by this version's")

    def _follow(self, changes: Changes) -> None:
        self.revision += 1
        self._links = self._netlink.links()
        self._underlay.follow(self._links)
        if changes.links or changes.addresses or changes.routes or changes.lost:
            self._ways.forget()
            for id_, made in self._made.items():
                links = self._links_of(made.tunnel)
                if links != made.links or self._bpf_tunnel(made.wanted) != made.tunnel:
                    self._stale.add(id_)

    def _current(self, id_: int) -> Tunnel | None:
        made = self._made.get(id_)
        return None if made is None or id_ in self._stale else made.wanted

    def _apply(self, action: plan.Action) -> None:
        match action:
            case plan.AttachInstance(instance, link):
                self._dataplane.attach_instance(
                    instance.interface, instance.inside, instance.inside6, instance.public
                )
                self._attached[instance.interface] = link
            case plan.DetachInstance(interface):
                self._dataplane.detach_instance(interface)
                self._attached.pop(interface, None)
            case plan.SetTunnel(tunnel):
                self._set_tunnel(tunnel, self._bpf_tunnel(tunnel))
            case plan.DeleteTunnel(id_):
                self._dataplane.delete_tunnel(id_)
                self._ids.discard(id_)
                self._made.pop(id_, None)
            case plan.SetEndpoints(_, endpoints):
                self._change_endpoints(add=endpoints)
            case plan.DeleteEndpoints(keys):
                self._change_endpoints(delete=keys)
            case plan.OpenPorts(elements):
                self._ports.change(add=elements)
            case plan.ClosePorts(elements):
                self._ports.change(delete=elements)

    def _change_endpoints(
        self, *, add: Mapping[EndpointKey, bpf.Endpoint] | None = None, delete: Iterable[EndpointKey] = ()
    ) -> None:
        # What a call that fails leaves behind must be looked at.
        known, self._endpoints = self._endpoints, None
        self._dataplane.delete_endpoints(delete)
        for part in parts(add or {}):
            self._dataplane.set_endpoints(part)
        if known is not None:
            for key in delete:
                known.pop(key, None)
            known.update(add or {})
            self._endpoints = known

    def _set_tunnel(self, wanted: Tunnel, tunnel: bpf.Tunnel) -> None:
        links = self._links_of(tunnel)
        self._dataplane.set_tunnel(tunnel)
        self._ids.add(tunnel.id)
        self._made[tunnel.id] = _Made(wanted, tunnel, links)
        self._stale.discard(tunnel.id)

    def _links_of(self, tunnel: bpf.Tunnel) -> tuple[Link | None, ...]:
        names = (tunnel.underlay, tunnel.interface, tunnel.route.interface if tunnel.route else None)
        return tuple(self._links.get(name) if name else None for name in names)

    def _bpf_tunnel(self, tunnel: Tunnel) -> bpf.Tunnel:
        peer = self._dataplane.peer(tunnel.id)
        way = self._ways.to(peer.address, peer.local) if peer is not None else None
        return bpf.Tunnel(
            id=tunnel.id,
            service=tunnel.service,
            inside=tunnel.inside,
            inside6=tunnel.inside6,
            local=None,
            remote=tunnel.declared,
            remote_port=GUE_PORT,
            underlay=way.interface if way is not None else self._usual_underlay(),
            interface=instance_interface(tunnel.inside),
            keys=tunnel.keys,
            active=tunnel.active,
            route=route(peer.address, way) if peer is not None else None,
        )

    def _usual_underlay(self) -> str:
        return next(iter(self._underlay.links), self._settings.names[0])
