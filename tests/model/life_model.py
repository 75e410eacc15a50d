# SPDX-License-Identifier: Apache-2.0
"""A control plane of two accounts over nodes of the model, what is done to it, and what must always hold."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import life_siblings
import life_tunnels
from life_nodes import EpicNode, WorkloadNode
from life_plant import Clock, FullDisk, Plant

from epic.api.bodies import NodeBody, ProxySpecInput
from epic.api.context import Context
from epic.api.gateway import gateways as api_gateways
from epic.api.gateway.names import DNSNames, with_names
from epic.api.node import nodes as api_nodes
from epic.api.precondition import Precondition
from epic.errors import EpicError
from epic.model.backlog import TunnelBacklog
from epic.model.base import Metadata
from epic.model.resources import (
    Account,
    GWEndpointSlice,
    GWProxy,
    GWRoute,
    LBServiceGroup,
    Node,
    ServicePrefix,
    Tunnel,
)
from epic.model.runs import Run
from epic.model.siblings import Siblings
from epic.reconcile.tunnels.tunnelling import replan
from epic.store.location import StoreLocation

POOL = IPv4Network("100.64.0.0/29")
ACCOUNTS = ("a", "b")
WORKLOAD_NODES = ("w1", "w2", "w3", "w4", "w5")
SETTINGS = api_gateways.GatewaySettings(POOL, address_quarantine=timedelta(seconds=30))


class _NoEvents:
    def follow(self, run: str, *, live: bool) -> Any:
        raise NotImplementedError


class Model(Plant):
    """Everything, and what happens to it."""

    store: FullDisk

    def __init__(self, directory: Path, clock: Clock) -> None:
        super().__init__(FullDisk(StoreLocation(sqlite=directory / "epic.db")), clock, POOL)
        self.context = Context(store=self.store, inside_pool=POOL, run_events=_NoEvents())
        self.lost: dict[str, datetime] = {}
        """Nodes removed by force, and when they are switched off at the latest."""
        self._made = 0
        with self.store.transaction() as transaction:
            pools = {
                "public-pool": {"pool": "203.0.113.0/29", "subnet": "203.0.113.0/24"},
                "alt-pool": {"pool": "2001:db8::8/125", "subnet": "2001:db8::/64"},
            }
            transaction.create(ServicePrefix.model_validate({"metadata": {"name": "p"}, "spec": pools}))
            for account in ACCOUNTS:
                transaction.create(Account(metadata=Metadata(name=account)))
                transaction.create(
                    LBServiceGroup.model_validate(
                        {"metadata": {"name": "g", "namespace": account}, "spec": {"service-prefix": "p"}}
                    )
                )
        self.workload = {(a, name): WorkloadNode(a, name) for a in ACCOUNTS for name in WORKLOAD_NODES}
        for number in (1, 2, 3):
            self.register(f"e{number}")

    # What users and operators do

    def register(self, name: str, *, same_host: bool = False) -> None:
        """A node joins, or joins again; `same_host`: as the host that was removed by force left it."""
        if self.store.full or self.store.find(Node, "", name) is not None:
            return
        if name not in self.epic or (name in self.lost and not same_host):
            old = self.epic.pop(name, None)
            if old is not None:
                old.power_off()
            self.epic[name] = EpicNode(name)
        node = self.epic[name]
        if self.lost.pop(name, None) is not None:
            node.connected, node.agent, node.stuck = True, True, False
        node.certified = self.store.revision
        body = NodeBody.model_validate(
            {"node": {"metadata": {"name": name}, "spec": {"address": f"192.0.2.{name[1:]}"}}}
        )
        api_nodes.register(self.context, name, body, Precondition())
        if same_host:
            self.node_works(name)

    def create(self, account: str) -> None:
        """A gateway with a route and a Service of some endpoints; refused when there is no room."""
        self._made += 1
        uid = f"u{self._made}"
        spec = ProxySpecInput.model_validate(
            {
                "clientRef": {"uid": uid, "clusterID": account, "namespace": "n", "name": uid},
                "gateway": {
                    "gatewayClassName": "k",
                    "listeners": [{"name": "h", "port": 80, "protocol": "HTTP"}],
                },
            }
        )

        def write(names: DNSNames) -> None:
            with self.context.current.transaction() as (transaction, world):
                group = transaction.get(LBServiceGroup, account, "g")
                api_gateways.create_gateway(transaction, world, group, spec, SETTINGS, names)
                world.note(transaction.create(_route(account, uid)))
                if self._made % 3:
                    piece = _slice(account, uid, WORKLOAD_NODES[: self._made % 3 * 2])
                    world.note(transaction.create(piece))
                replan(transaction, world, account, {uid})

        try:
            with_names(write)
        except EpicError:
            return

    def move_endpoints(self, account: str, name: str, nodes: Sequence[str]) -> None:
        """The pods behind a gateway are on these nodes now."""
        piece = _slice(account, name, nodes)
        with self._may_fail(), self.context.current.transaction() as (transaction, world):
            stored = transaction.find(GWEndpointSlice, account, piece.name)
            if stored is not None:
                world.note(transaction.update(stored.model_copy(update={"spec": piece.spec})))
                replan(transaction, world, account, {name})

    def delete(self, account: str, name: str) -> None:
        """The user deletes a gateway."""
        with self._may_fail(), self.store.transaction() as transaction:
            proxy = transaction.find(GWProxy, account, name)
            if proxy is not None:
                api_gateways.delete_gateway(transaction, proxy)

    def remove_node(self, name: str, *, force: bool) -> None:
        """The operator removes a node; by force only one that is away, and he sees to it that it ends."""
        node = self.epic[name]
        if force and node.connected:
            return
        with self._may_fail():
            api_nodes.delete(self.context, name, Precondition(), force=force)
            if force:
                self.lost.setdefault(name, self.clock() + timedelta(minutes=9))

    def maintain(self, name: str, **spec: bool) -> None:
        """Cordon, drain, uncordon."""
        with self._may_fail(), self.store.transaction() as transaction:
            node = transaction.find(Node, "", name)
            if node is not None and not node.deleting:
                spec_after = node.spec.model_copy(update=spec)
                transaction.update(node.model_copy(update={"spec": spec_after}))

    def change_group(self, account: str, **spec: object) -> None:
        """The operator changes a template."""
        with self._may_fail(), self.store.transaction() as transaction:
            group = transaction.get(LBServiceGroup, account, "g")
            spec_after = group.spec.model_copy(update=spec)
            transaction.update(group.model_copy(update={"spec": spec_after}))

    def pass_time(self, seconds: float) -> None:
        """Time passes; what was removed by force is off by its end."""
        self.clock.pass_(seconds)
        for name, deadline in list(self.lost.items()):
            if self.clock() >= deadline:
                self.epic[name].power_off()

    def switch_off_lost(self) -> None:
        """Time passes until all that was removed by force is off."""
        last = max(self.lost.values(), default=self.clock())
        self.pass_time(max(0.0, (last - self.clock()).total_seconds()))

    # What must hold

    def check_announced(self, node: EpicNode, gateways: set[str]) -> None:
        life_siblings.check_announced(self, node, gateways)
        life_tunnels.check_announced(self, node, gateways)

    def check_departure(self, proxy: GWProxy, left: str) -> None:
        life_tunnels.check_departure(self, proxy, left)

    def check(self) -> None:
        """At every moment: nothing of one gateway's leads to another's."""
        proxies = self.store.list(GWProxy)
        public = {str(address): str(p.id) for p in proxies for address in p.addresses}
        inside = {str(i.inside_address): str(p.id) for p in proxies for i in p.status.instances}
        assert len(public) == 2 * len(proxies), "an address was given twice"
        assert len(inside) == sum(len(p.status.instances) for p in proxies), (
            "an inside address was given twice"
        )
        # The records of a gateway's two addresses have one name.
        names = [name for p in proxies for name in {endpoint.dns_name for endpoint in p.spec.endpoints}]
        assert len(names) == len(set(names)), "a DNS name was given twice"
        life_siblings.check(self)
        for node in self.epic.values():
            for address, gateway in node.announced.items():
                unit = node.units.get(gateway)
                assert unit is not None, f"{node.name} announces {address} without an Envoy"
                assert (address in unit.publics, unit.running) == (True, True)
                owner = public.get(address, gateway)
                assert owner == gateway, f"{address} of {owner} leads to {gateway} on {node.name}"
            for unit in node.units.values():
                owner = inside.get(unit.inside, unit.gateway)
                assert owner == unit.gateway, f"{unit.inside} of {owner} is {unit.gateway}'s on {node.name}"
            for address, gateway in node.plumbing.items():
                owner = inside.get(address, gateway)
                assert owner == gateway, f"{node.name}: {address} of {owner} is still {gateway}'s"
        self._check_tunnels(inside)

    def _check_tunnels(self, inside: dict[str, str]) -> None:
        """A tunnel that an end still has is nobody else's: neither its address nor its id nor its keys."""
        numbers = {int(t.name): f"{t.account}.{t.spec.proxy}" for t in self.store.list(Tunnel)}
        secrets: dict[bytes, str] = {}
        for node in (*self.epic.values(), *self.workload.values()):
            for number, tunnel in node.tunnels.items():
                owner = inside.get(tunnel.inside, tunnel.gateway)
                assert owner == tunnel.gateway, f"{node.name}: {tunnel.gateway}'s tunnel at {owner}'s address"
                owner = numbers.get(number, tunnel.gateway)
                assert owner == tunnel.gateway, f"{node.name}: {tunnel.gateway}'s tunnel has {owner}'s id"
                for secret in tunnel.secrets:
                    owner = secrets.setdefault(secret, tunnel.gateway)
                    assert owner == tunnel.gateway, (
                        f"{node.name}: {tunnel.gateway}'s tunnel has {owner}'s key"
                    )

    def check_units(self) -> None:
        """When everybody has done his work: no node runs an Envoy that it is not to have."""
        for node in self.store.list(Node):
            placed = {
                str(p.id) for p in self.store.list(GWProxy) for i in p.status.instances if i.node == node.name
            }
            left = set(self.epic[node.name].units) - placed
            assert node.status.lost or not left, f"{node.name} runs {left}, which nobody wants there"

    def check_nothing_left(self) -> None:
        """At the end."""
        for kind in (GWProxy, Tunnel, TunnelBacklog, Siblings):
            assert self.store.list(kind) == []
        for node in self.epic.values():
            assert (node.units, node.announced, node.tunnels, node.plumbing) == ({}, {}, {}, {}), node.name
            assert node.siblings == {}, node.name
        assert all(not node.tunnels for node in self.workload.values())
        assert not [r for r in self.store.list(Run) if r.status.state == "running"]


def _route(account: str, uid: str) -> GWRoute:
    rule = {"backendRefs": [{"name": f"s-{uid}", "port": 80}]}
    http = {"parentRefs": [{"name": uid}], "rules": [rule]}
    return GWRoute.model_validate(
        {"metadata": {"name": f"r-{uid}", "namespace": account}, "spec": {"http": http}}
    )


def _slice(account: str, uid: str, nodes: Sequence[str]) -> GWEndpointSlice:
    spec = {
        "clientRef": {"clusterID": account},
        "parentRef": {"uid": f"s-{uid}"},
        "endpoints": [{"addresses": [f"10.1.0.{n[1:]}"], "nodeName": n} for n in nodes],
        "ports": [{"port": 8080}],
        "nodeAddresses": {n: f"192.168.50.{n[1:]}" for n in nodes},
    }
    return GWEndpointSlice.model_validate(
        {"metadata": {"name": f"e-{uid}", "namespace": account}, "spec": spec}
    )
