# SPDX-License-Identifier: Apache-2.0
"""A control plane without nodes, for tests of leading siblings on: what nodes say is put in by hand."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from clock import Clock

from epic.api.bodies import ProxySpecInput
from epic.api.gateway.gateways import GatewaySettings, create_gateway
from epic.api.gateway.names import DNSNames, with_names
from epic.cache.store import CachedStore
from epic.model.base import Metadata
from epic.model.resources import Account, GWProxy, LBServiceGroup, Node, ServicePrefix
from epic.model.siblings import Siblings, SiblingsSpec
from epic.model.values.naming import GatewayId
from epic.reconcile.siblings import relist_gateway
from epic.reconcile.siblings_keeper import SiblingsKeeper
from epic.reconcile.world import World
from epic.rotation import Policy
from epic.siblings.heard import AppliedLists
from epic.store.location import StoreLocation

GATEWAY = GatewayId("a", "u1")
SETTINGS = GatewaySettings(IPv4Network("100.64.0.0/24"), timedelta())
SERVING = {"phase": "Serving", "unit": "current", "ready": True, "announced": True}


class Watched(CachedStore):
    """A store that can be full, and that tells when somebody lists."""

    full = False
    lists = 0

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        with super().transaction() as transaction:
            listing = transaction.list

            def counted(*arguments: Any) -> Any:
                self.lists += 1
                return listing(*arguments)

            transaction.list = counted  # type: ignore[method-assign]
            yield transaction
            if self.full:
                raise sqlite3.OperationalError("database or disk is full")

    def list(self, *arguments: Any) -> Any:
        self.lists += 1
        return super().list(*arguments)


class Site:
    """A control plane without nodes: what these say is put in by hand."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.clock = clock
        self.store = Watched(StoreLocation(sqlite=path / "epic.db"))
        self.restart()
        with self.store.transaction() as transaction:
            pool = {"pool": "203.0.113.0/24", "subnet": "203.0.113.0/24"}
            transaction.create(
                ServicePrefix.model_validate({"metadata": {"name": "p"}, "spec": {"public-pool": pool}})
            )
            transaction.create(Account(metadata=Metadata(name="a")))
            group = {"metadata": {"name": "g", "namespace": "a"}, "spec": {"service-prefix": "p"}}
            transaction.create(LBServiceGroup.model_validate(group))

    def restart(self) -> None:
        self.applied = AppliedLists(self.clock.seconds)
        self.keeper = SiblingsKeeper(self.store, self.applied, Policy(), self.clock.seconds)
        self.seen = self.keeper.begin()

    def add_node(self, name: str, *, second_chance: bool = True) -> None:
        spec = {"address": f"192.0.2.{name[1:]}"}
        status = {"second-chance": second_chance}
        with self.store.transaction() as transaction:
            transaction.create(
                Node.model_validate({"metadata": {"name": name}, "spec": spec, "status": status})
            )

    def change_node(self, name: str, **status: object) -> None:
        with self.store.transaction() as transaction:
            stored = transaction.get(Node, "", name)
            changed = stored.status.model_copy(update=status)
            transaction.update(stored.model_copy(update={"status": changed}))

    def create(self, uid: str = "u1") -> None:
        listeners = [{"name": "h", "port": 80, "protocol": "HTTP"}]
        client = {"uid": uid, "clusterID": "c", "namespace": "n", "name": uid}
        gateway = {"gatewayClassName": "k", "listeners": listeners}
        spec = ProxySpecInput.model_validate({"clientRef": client, "gateway": gateway})

        def write(names: DNSNames) -> None:
            with self.store.transaction() as transaction:
                group = transaction.get(LBServiceGroup, "a", "g")
                world = World.of(transaction)
                create_gateway(transaction, world, group, spec, SETTINGS, names)

        with_names(write)

    def change_instance(self, node: str, **values: object) -> None:
        """As the sequencer does it: the list follows in the same transaction."""
        with self.store.transaction() as transaction:
            proxy = transaction.get(GWProxy, "a", "u1")
            instances = tuple(
                i.model_copy(update=values) if i.node == node else i for i in proxy.status.instances
            )
            status = proxy.status.model_copy(update={"instances": instances})
            proxy = proxy.model_copy(update={"status": status})
            relist_gateway(transaction, proxy, World.of(transaction).nodes_to_list())

    def hear(self, node: str, version: str | None = None) -> None:
        """The node says that it has a list: the newest, if not said otherwise."""
        said = self.spec.version if version is None else version
        self.keeper.hear(self.applied.take(node, {GATEWAY: said}))
        self.work()

    def work(self) -> None:
        while True:
            changes = list(self.store.changes(self.seen))
            self.seen = changes[-1].revision if changes else self.seen
            self.keeper.take_in(changes)
            self.keeper.work()
            wait = self.keeper.wait()
            if not changes and (wait is None or wait > 0):
                return

    def pass_time(self, seconds: float) -> None:
        self.clock.pass_(seconds)
        self.work()

    @property
    def spec(self) -> SiblingsSpec:
        return self.store.get(Siblings, "a", "u1").spec

    @property
    def proxy(self) -> GWProxy:
        return self.store.get(GWProxy, "a", "u1")

    @property
    def held(self) -> set[str]:
        return {i.node for i in self.proxy.status.instances if i.hold}

    @property
    def listed(self) -> set[str]:
        return {i.node for i in self.proxy.status.instances if i.listed}

    @property
    def awaits(self) -> dict[str, tuple[str, ...]]:
        return {i.node: i.awaits for i in self.proxy.status.instances if i.awaits}

    @property
    def condition(self) -> tuple[str, str]:
        found = next(c for c in self.proxy.status.conditions if c.type == "SecondChance")
        return found.status, found.reason
