# SPDX-License-Identifier: Apache-2.0
"""Gateways with tunnels in a store, and turns of the life cycle over them; nodes do nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network

from epic.cache.store import CachedStore
from epic.heartbeats import Heartbeats
from epic.lifecycle.tunnels import Evidence
from epic.model.base import Metadata, now
from epic.model.instances import ProxyInstance
from epic.model.resources import Account, GWEndpointSlice, GWProxy, GWRoute, LBServiceGroup, Tunnel
from epic.reconcile.current import CurrentWorld
from epic.reconcile.lifecycle import Lifecycle
from epic.reconcile.tunnels.tunnelling import replan
from epic.reconcile.turn import LifecycleSettings
from epic.workqueue.queue import WorkQueue


def application(store: CachedStore, account: str, nodes: int, *, on: Sequence[str] = ("e1",)) -> None:
    """An account with a gateway, instances on these nodes, and endpoints on so many workload nodes."""
    with CurrentWorld(store).transaction() as (transaction, seen):
        place_ = {"name": "g", "namespace": account}
        group = {"service-prefix": "p", "envoy-replica-count": len(on)}
        instances = [
            {
                "node": node,
                "inside-address": f"100.64.0.{transaction.next_number('address')}",
                "unit": "current",
            }
            for node in on
        ]
        rule = {"backendRefs": [{"name": "s", "port": 80}]}
        transaction.create(Account(metadata=Metadata(name=account)))
        for obj in (
            LBServiceGroup.model_validate({"metadata": place_, "spec": group}),
            GWProxy.model_validate(
                {"metadata": place_, "spec": {"group": "g"}, "status": {"instances": instances}}
            ),
            GWRoute.model_validate(
                {"metadata": place_, "spec": {"http": {"parentRefs": [{"name": "g"}], "rules": [rule]}}}
            ),
            piece(account, range(nodes)),
        ):
            seen.note(transaction.create(obj))
        replan(transaction, seen, account, {"g"})


def instances_of(store: CachedStore, account: str, name: str, *, on: Sequence[str]) -> None:
    """One more gateway of the account, to which its route leads as well."""
    with CurrentWorld(store).transaction() as (transaction, seen):
        address = IPv4Address("100.64.0.0")
        instances = tuple(
            ProxyInstance(node=node, inside_address=address + transaction.next_number("address"))
            for node in on
        )
        first, route = transaction.get(GWProxy, account, "g"), transaction.get(GWRoute, account, "g")
        status = first.status.model_copy(update={"instances": instances})
        metadata = Metadata(name=name, namespace=account)
        seen.note(transaction.create(GWProxy(metadata=metadata, spec=first.spec, status=status)))
        body = route.spec.model_dump(by_alias=True, exclude_none=True)
        body["http"]["parentRefs"] = [*body["http"]["parentRefs"], {"name": name}]
        spec = type(route.spec).model_validate(body)
        seen.note(transaction.update(route.model_copy(update={"spec": spec})))
        replan(transaction, seen, account, {name})


def piece(account: str, nodes: Iterable[int], *, each: int = 1) -> GWEndpointSlice:
    """So many endpoints on each of the workload nodes of these numbers."""
    numbers = list(nodes)
    spec = {
        "clientRef": {"clusterID": "c"},
        "parentRef": {"uid": "s"},
        "endpoints": [
            {"addresses": [str(IPv4Address("10.0.0.1") + n + 1000 * i)], "nodeName": f"n{n:03}"}
            for n in numbers
            for i in range(each)
        ],
        "nodeAddresses": {f"n{n:03}": str(IPv4Address("198.18.0.1") + n) for n in numbers},
    }
    return GWEndpointSlice.model_validate({"metadata": {"name": "g", "namespace": account}, "spec": spec})


def move(store: CachedStore, account: str, nodes: Iterable[int]) -> None:
    """Its endpoints are on these nodes now."""
    with CurrentWorld(store).transaction() as (transaction, seen):
        stored = transaction.get(GWEndpointSlice, account, "g")
        changed = stored.model_copy(update={"spec": piece(account, nodes).spec})
        seen.note(transaction.update(changed))
        replan(transaction, seen, account, {"g"})


def announce(store: CachedStore, account: str, *nodes: str) -> None:
    """The account's gateway serves on these nodes, and on no others."""
    with store.transaction() as transaction:
        proxy = transaction.get(GWProxy, account, "g")
        instances = (i.model_copy(update={"announced": i.node in nodes}) for i in proxy.status.instances)
        status = proxy.status.model_copy(update={"instances": tuple(instances)})
        transaction.update(proxy.model_copy(update={"status": status}))


def add_instance(store: CachedStore, account: str, node: str) -> None:
    """The gateway gets an instance there, and keeps those that it has."""
    with CurrentWorld(store).transaction() as (transaction, seen):
        proxy = transaction.get(GWProxy, account, "g")
        address = IPv4Address("100.64.0.0") + transaction.next_number("address")
        new = ProxyInstance(node=node, inside_address=address, unit="current", unconnected="pending")
        status = proxy.status.model_copy(update={"instances": (*proxy.status.instances, new)})
        seen.note(transaction.update(proxy.model_copy(update={"status": status})))
        replan(transaction, seen, account, {"g"})


class Turns:
    """The life cycle of gateways whose tunnels both ends let go of at once, unless they do not `let_go`."""

    let_go = True

    def __init__(self, store: CachedStore, seconds: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        settings = LifecycleSettings(IPv4Network("100.64.0.0/24"), "1")
        self._work = Lifecycle(store, settings, self.evidence, Heartbeats())
        self._work.queue = WorkQueue(seconds)
        self._seen = self._work.begin()

    def evidence(self, _: Tunnel) -> Evidence:
        """What both ends say of a deleted tunnel."""
        return Evidence(
            epic_node_known=True,
            epic_end=not self.let_go,
            workload_end=False,
            applied=None,
            silent_since=now(),
        )

    def take(self, count: int = 1) -> None:
        """So many of them, each with what changed before it."""
        for _ in range(count):
            changes = list(self._store.changes(self._seen))
            self._seen = changes[-1].revision if changes else self._seen
            self._work.take_in(changes)
            self._work.work()
