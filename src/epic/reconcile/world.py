# SPDX-License-Identifier: Apache-2.0
"""What the lives of gateways and nodes depend on, indexed, kept by the store's changes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import ClassVar, Literal, NamedTuple, Self

from epic.ipam.releases import REMEMBERED
from epic.lifecycle.claims import Claims
from epic.lifecycle.digest import Placed, node_digest
from epic.lifecycle.goals import Host
from epic.model.backlog import TunnelBacklog
from epic.model.base import Resource
from epic.model.members import GWMember
from epic.model.nodes import Quarantine
from epic.model.releases import ReleasedAddress
from epic.model.resources import GWEndpointSlice, GWProxy, GWRoute, LBServiceGroup, Node, Tunnel
from epic.model.runs import Run
from epic.model.values.naming import NODE_ENDPOINTS, NODE_TUNNELS, GatewayId
from epic.placement import Candidate
from epic.reconcile.counts.account_tunnels import AccountTunnels
from epic.reconcile.counts.backends import Backends
from epic.reconcile.counts.counting import add, count, discard
from epic.reconcile.counts.index import Tunnels
from epic.reconcile.counts.node_endpoints import NodeEndpoints
from epic.reconcile.counts.sizes import Sizes
from epic.reconcile.unreadable import UnreadableObjects
from epic.store.interface import Change, R, Reader
from epic.store.objects import Unreadable

_LIVES: tuple[type[Resource], ...] = (
    GWProxy,
    LBServiceGroup,
    Node,
    Run,
    Quarantine,
    ReleasedAddress,
    Tunnel,
    TunnelBacklog,
)
KINDS: tuple[type[Resource], ...] = (*_LIVES, GWRoute, GWEndpointSlice, GWMember)
"""What matters here."""
_MANY_TUNNELS = NODE_TUNNELS * 3 // 4
_MANY_ENDPOINTS = NODE_ENDPOINTS * 3 // 4
"""A node with so many of these gets gateways only when no other node has room."""


class Key(NamedTuple):
    """One piece of work; the name of a plan is that of the gateway after which to go on."""

    kind: Literal["gateway", "node", "plan", "tunnels", "quarantine", "release"]
    account: str
    name: str


class Lives:
    """Gateways, their templates, nodes, tunnels and runs under way: whether something of a life is due."""

    kinds: ClassVar[tuple[type[Resource], ...]] = _LIVES

    def __init__(self) -> None:
        self.proxies: dict[GatewayId, GWProxy] = {}
        self.nodes: dict[str, Node] = {}
        self.groups: dict[tuple[str, str], LBServiceGroup] = {}
        self.quarantines: dict[str, Quarantine] = {}
        self.releases: dict[str, ReleasedAddress] = {}
        self._runs: dict[str, Run] = {}
        self.tunnels = Tunnels()
        self._backlogs: dict[str, tuple[str, ...]] = {}
        self._waiting: dict[str, set[str]] = {}
        self._short: dict[str, set[GatewayId]] = {}
        """By node, the gateways that are without tunnels there, maybe, since nodes have no room."""
        self._load: Counter[str] = Counter()
        self._in_account: dict[str, set[str]] = {}
        self._on_node: dict[str, set[GatewayId]] = {}
        self.unreadable = UnreadableObjects()
        """What belongs to them stays."""

    @classmethod
    def of(cls, reader: Reader) -> Self:
        """The same as it is in the store."""
        found = cls()
        for kind in cls.kinds:
            for obj in reader.list(kind):
                found.note(obj)
        found.hold_unreadable(reader.unreadable())
        return found

    def keys(self) -> set[Key]:
        """All there is to look after."""
        found = {_gateway_key(gateway) for gateway in self.proxies}
        found |= {Key("node", "", name) for name in self.nodes}
        found |= {Key("release", "", name) for name in self.releases}
        found |= {Key("plan", account, "") for account in (*self._backlogs, *self._waiting)}
        return found | {Key("quarantine", "", name) for name in self.quarantines}

    def apply(self, change: Change) -> set[Key]:
        """Take in a change; returns what is to be looked at because of it."""
        account, name, obj = change.account, change.name, change.object
        self.unreadable.release(change.kind, account, name)
        match change.kind:
            case GWProxy.kind:
                found = self._apply_proxy(GatewayId(account, name), obj)
            case Node.kind:
                found = self._apply_node(name, obj)
            case LBServiceGroup.kind:
                found = self._apply_group((account, name), obj)
            case Run.kind:
                found = self._apply_run(name, obj)
            case Quarantine.kind:
                found = self._apply_quarantine(name, obj)
            case ReleasedAddress.kind:
                found = self._apply_release(name, obj)
            case Tunnel.kind:
                found = self._apply_tunnel(account, name, obj)
            case TunnelBacklog.kind:
                found = self._apply_backlog(account, obj)
            case _:
                found = set()
        return found

    def note(self, obj: R) -> R:
        """Take in an object that was written just now."""
        self.apply(Change(obj.metadata.resource_version, obj.kind, obj.account, obj.name, obj))
        return obj

    def drop(self, obj: Resource) -> None:
        """Take in that an object was deleted just now."""
        self.apply(Change(0, obj.kind, obj.account, obj.name, None))

    def hold_unreadable(self, found: Iterable[Unreadable]) -> None:
        """Let what belongs to these objects be: they are there, whatever they say."""
        for unreadable in found:
            self.unreadable.hold(unreadable)

    def held_until(self, key: Key) -> datetime | None:
        """Until when a quarantine or the release of an address is to be kept; None: there is none."""
        if key.kind == "release":
            released = self.releases.get(key.name)
            return released.spec.released + REMEMBERED if released is not None else None
        held = self.quarantines.get(key.name)
        return held.spec.until if held is not None else None

    def count_gateways(self, account: str) -> int:
        """How many gateways the account has, those included that go."""
        return len(self.names(account))

    def names(self, account: str) -> Collection[str]:
        """The names of the account's gateways, those included that go."""
        return self._in_account.get(account, ())

    def backlog(self, account: str) -> tuple[str, ...]:
        """The account's gateways whose tunnels are not at their plan yet, in the order of their turns."""
        return self._backlogs.get(account, ())

    def waiting(self, account: str) -> set[str]:
        """The account's gateways that are without some of their tunnels, since there is no room for them."""
        return self._waiting.get(account, set())

    def candidates(self) -> list[Candidate]:
        """The nodes that may get instances of new gateways."""
        return [
            self._candidate(node, schedulable=node.spec.schedulable and not node.spec.drain)
            for node in self.nodes.values()
            if not node.deleting
        ]

    def placed(self, node: str) -> list[Placed]:
        """All instances on a node that it has not let go of."""
        found: list[Placed] = []
        for gateway in self._on_node.get(node, ()):
            instances = self.proxies[gateway].status.instances
            found += [Placed(str(gateway), i) for i in instances if i.node == node]
        return found

    def hosts(self, proxy: GWProxy) -> dict[str, Host]:
        """All nodes as the gateway's instances see them."""
        going = {i.node for i in proxy.status.instances if i.phase == "Removed"}
        states = defaultdict(set)
        for run in self._runs.values():
            for node in run.spec.nodes:
                states[node].add(run.status.state)
        return {name: self._unreadable_host(name) for name in self.unreadable.names(Node)} | {
            name: Host(
                candidate=self._candidate(node, schedulable=node.spec.schedulable),
                drain=node.spec.drain,
                removing=node.deleting,
                lost=node.status.lost,
                pending="queued" in states[name],
                running="running" in states[name],
                applied=name in going and self.has_applied(node),
                unheard_ok=node.spec.unheard_ok,
            )
            for name, node in self.nodes.items()
        }

    def nodes_to_list(self) -> dict[str, Node | None]:
        """All nodes by name, as lists of siblings take them; None: one cannot be read."""
        return {**dict.fromkeys(self.unreadable.names(Node)), **self.nodes}

    def _unreadable_host(self, name: str) -> Host:
        return Host(Candidate(name, 0, self._load[name], schedulable=False), unreadable=True)

    def has_applied(self, node: Node) -> bool:
        """Whether the node has carried out all that it is told now."""
        return node.status.applied_digest == node_digest(node.status, self.placed(node.name))

    def _candidate(self, node: Node, *, schedulable: bool) -> Candidate:
        return Candidate(
            node.name,
            node.spec.capacity,
            self._load[node.name],
            schedulable,
            node.status.unheard,
            crowded=self._is_crowded(node.name),
        )

    def _is_crowded(self, node: str) -> bool:
        return self.tunnels.on_node(node) >= _MANY_TUNNELS

    def _apply_tunnel(self, account: str, name: str, obj: Resource | None) -> set[Key]:
        before = self.tunnels.apply(account, name, obj)
        if obj is None:  # Who waits for room, of the account or on the node, may have found some.
            short = self._short.get(before.spec.epic_node, ()) if before is not None else ()
            accounts = {gateway.account for gateway in short} | ({account} & self._waiting.keys())
            return {Key("plan", waiting, "") for waiting in accounts}
        return {Key("tunnels", account, "")} if obj.deleting else set()

    def _apply_backlog(self, account: str, obj: Resource | None) -> set[Key]:
        before = self._backlogs.pop(account, ())
        after = obj.spec.gateways if isinstance(obj, TunnelBacklog) else ()
        if after:
            self._backlogs[account] = after
        # A gateway that goes is gone when its tunnels are.
        done = {_gateway_key(GatewayId(account, name)) for name in set(before).difference(after)}
        return done | ({Key("plan", account, "")} if after else set())

    def _apply_proxy(self, gateway: GatewayId, obj: Resource | None) -> set[Key]:
        old = self.proxies.pop(gateway, None)
        discard(self._in_account, gateway.account, gateway.proxy)
        before = [i.node for i in old.status.instances] if old else []
        for node in before:
            count(self._load, node, -1)
            discard(self._on_node, node, gateway)
        after: list[str] = []
        if isinstance(obj, GWProxy):
            self.proxies[gateway] = obj
            add(self._in_account, gateway.account, gateway.proxy)
            after = [i.node for i in obj.status.instances]
            for node in after:
                count(self._load, node, 1)
                add(self._on_node, node, gateway)
        nodes = {Key("node", "", node) for node in (*before, *after) if node in self.nodes}
        return nodes | {_gateway_key(gateway)} | self._note_waiting(gateway, old, obj)

    def _note_waiting(self, gateway: GatewayId, old: GWProxy | None, obj: Resource | None) -> set[Key]:
        before, after = _short_nodes(old), _short_nodes(obj)
        for node in before - after:
            discard(self._short, node, gateway)
        for node in after - before:
            add(self._short, node, gateway)
        names = self._waiting.pop(gateway.account, set())
        waited, waits = gateway.proxy in names, _is_waiting(obj)
        names = names - {gateway.proxy} | ({gateway.proxy} if waits else set())
        if names:
            self._waiting[gateway.account] = names
        # What became free before one hears that somebody waits for it wakes nobody.
        newly = (waits and not waited) or bool(after - before)
        # Who waits for room may be needed when another serves no more.
        changed = waits and _announced(old) != _announced(obj)
        return {Key("plan", gateway.account, "")} if newly or changed else set()

    def _apply_node(self, name: str, obj: Resource | None) -> set[Key]:
        old = self.nodes.pop(name, None)
        if isinstance(obj, Node):
            self.nodes[name] = obj
        if old is None or not isinstance(obj, Node) or _orders(old) != _orders(obj):
            touched: Iterable[GatewayId] = self.proxies
        elif old.status.applied_digest != obj.status.applied_digest:
            touched = self._on_node.get(name, ())
        else:
            touched = ()
        return {Key("node", "", name), *map(_gateway_key, touched)}

    def _apply_group(self, name: tuple[str, str], obj: Resource | None) -> set[Key]:
        self.groups.pop(name, None)
        if isinstance(obj, LBServiceGroup):
            self.groups[name] = obj
        users = [g for g, p in self.proxies.items() if (p.account, p.spec.group) == name]
        return set(map(_gateway_key, users))

    def _apply_quarantine(self, name: str, obj: Resource | None) -> set[Key]:
        self.quarantines.pop(name, None)
        if not isinstance(obj, Quarantine):
            return set()
        self.quarantines[name] = obj
        return {Key("quarantine", "", name)}

    def _apply_release(self, name: str, obj: Resource | None) -> set[Key]:
        self.releases.pop(name, None)
        if not isinstance(obj, ReleasedAddress):
            return set()
        self.releases[name] = obj
        return {Key("release", "", name)}

    def _apply_run(self, name: str, obj: Resource | None) -> set[Key]:
        old = self._runs.pop(name, None)
        under_way = isinstance(obj, Run) and obj.status.state in {"queued", "running"}
        if isinstance(obj, Run) and under_way:
            self._runs[name] = obj
        if old is None or (under_way and isinstance(obj, Run) and obj.status.state == old.status.state):
            return set()
        return {_gateway_key(g) for node in old.spec.nodes for g in self._on_node.get(node, ())}


class World(Lives):
    """The lives and what their steps take: addresses and names, and what is behind gateways."""

    kinds = KINDS

    def __init__(self) -> None:
        super().__init__()
        self.claims = Claims()
        self.sizes = Sizes()
        self.backends = Backends()
        self.account_tunnels = AccountTunnels()

    def apply(self, change: Change) -> set[Key]:
        """Take in a change; returns what is to be looked at because of it."""
        account, name, obj = change.account, change.name, change.object
        self.claims.apply(change.kind, account, name, obj)
        self.sizes.apply(change.kind, account, name, obj)
        if change.kind == GWRoute.kind:
            self.backends.apply_route(account, name, obj)
        elif change.kind == GWEndpointSlice.kind:
            self.backends.apply_slice(account, name, obj)
        elif change.kind == GWProxy.kind:
            self.backends.apply_gateway(GatewayId(account, name), exists=obj is not None)
            self.endpoints.changed.add(GatewayId(account, name))
        elif change.kind == Tunnel.kind:
            new = obj if isinstance(obj, Tunnel) else None
            self.endpoints.apply_tunnel(self.tunnels.find(account, name), new)
        found = super().apply(change)
        if change.kind == LBServiceGroup.kind:
            self.endpoints.changed.update(GatewayId(key.account, key.name) for key in found)
        return found

    @property
    def endpoints(self) -> NodeEndpoints:
        """How many endpoints the kernels of EPIC nodes have."""
        return self.backends.endpoints

    def _is_crowded(self, node: str) -> bool:
        return super()._is_crowded(node) or self.endpoints.on_node(node) >= _MANY_ENDPOINTS

    def hold_unreadable(self, found: Iterable[Unreadable]) -> None:
        """The same, and let nobody have what they may hold."""
        unreadables = list(found)
        super().hold_unreadable(unreadables)
        for key, value in ((unreadable.key, unreadable.value) for unreadable in unreadables):
            self.claims.hold_unreadable(key.kind, key.account, key.name, value)


def _gateway_key(gateway: GatewayId) -> Key:
    return Key("gateway", *gateway)


def _is_waiting(obj: Resource | None) -> bool:
    return isinstance(obj, GWProxy) and bool(obj.status.unconnected or obj.status.crowded_out)


def _short_nodes(obj: Resource | None) -> set[str]:
    if not isinstance(obj, GWProxy) or not obj.status.crowded_out:
        return set()
    return {instance.node for instance in obj.status.instances}


def _announced(obj: Resource | None) -> set[str]:
    return {i.node for i in obj.status.instances if i.announced} if isinstance(obj, GWProxy) else set()


def _orders(node: Node) -> tuple[object, ...]:
    return node.spec, node.deleting, node.status.lost
