# SPDX-License-Identifier: Apache-2.0
"""A plant to control: real store, life cycle, publishing and records of runs, over nodes of the model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any

import pytest
from clock import Clock
from life_nodes import EpicNode, TunnelEnd, WorkloadNode
from whole_snapshot import node_snapshot

from epic.ads.desired.assemble import gateway_parts, node_state
from epic.ads.desired.objects import KINDS, ObjectIndex
from epic.ads.desired.siblings import SiblingLists
from epic.ads.reports import applied_siblings, heard, reported, silent
from epic.ads.snapshot import TUNNEL, Snapshot
from epic.cache.store import CachedStore
from epic.errors import StorageFull
from epic.heartbeats import Heartbeats
from epic.ipam.networks import DEFAULT_POOLS
from epic.lifecycle.digest import Placed
from epic.lifecycle.tunnels import Evidence
from epic.model import base
from epic.model.instances import ProxyInstance
from epic.model.nodes import NodeRevocation
from epic.model.resources import GWProxy, LBServiceGroup, Node, Tunnel
from epic.model.runs import NodeResult, Run
from epic.model.siblings import Siblings
from epic.reconcile.lifecycle import Lifecycle
from epic.reconcile.siblings_keeper import SiblingsKeeper
from epic.reconcile.turn import LifecycleSettings
from epic.rotation import Policy
from epic.runs.inventory import NodePlan, plan_nodes
from epic.runs.queue import find_unreadable
from epic.runs.records import Records
from epic.runs.results import NodeOutcome
from epic.runs.settings import RunSettings
from epic.siblings.heard import AppliedLists
from epic.store.interface import Change, Transaction
from epic.workqueue.queue import WorkQueue


class FullDisk(CachedStore):
    """The real store on a disk that may be full."""

    full = False

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        with super().transaction() as transaction:
            yield transaction
            if self.full:
                raise StorageFull("the disk is full")


@dataclass
class Execution:
    """A run that is under way; one that hangs reaches whatever host has its node's name later."""

    run: Run
    plan: NodePlan | None
    begun: float
    outcome: NodeOutcome | None = None
    hangs: bool = False


@dataclass
class Plant:
    """What the control plane and the nodes do. Each method that changes something is an event."""

    store: CachedStore
    clock: Clock
    pool: IPv4Network
    epic: dict[str, EpicNode] = field(default_factory=dict)
    workload: dict[tuple[str, str], WorkloadNode] = field(default_factory=dict)
    """By account and name."""
    executions: dict[str, Execution] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._objects = (-1, ObjectIndex(), SiblingLists())
        self.last_report: dict[str, float] = {}
        self.was_off: set[str] = set()
        """Nodes that were switched off, and have heard nothing since."""
        self.left_at_once: set[str] = set()
        """Nodes on which second chance was switched off at some time."""
        self.records = Records(self.store)
        self.restart_control()

    def settle(self, turns: int = 12) -> None:
        """Everybody works, in order, till nothing changes."""
        for _ in range(turns):
            before = self.store.revision
            for node in self.store.list(Node):
                self.epic.setdefault(node.name, EpicNode(node.name))
            self.reconcile()
            self.begin_runs()
            for name in list(self.executions):
                self.end_run(name)
            for name in self.epic:
                self.node_works(name)
            for tunnel in self.store.list(Tunnel):
                place = (tunnel.account, tunnel.spec.node_name)
                self.workload.setdefault(place, WorkloadNode(*place))
            for place in self.workload:
                self.workload_works(place)
            self.clock.pass_(1)
            if self.store.revision == before and not self.executions:
                return

    # What the control plane does

    def restart_control(self) -> None:
        """The process begins anew; runs that it executed ended with it."""
        self.executions.clear()
        settings = LifecycleSettings(self.pool, "1", drain_seconds=30)
        self.lifecycle = Lifecycle(self.store, settings, self._evidence, Heartbeats(self.clock.seconds))
        self.lifecycle.queue = WorkQueue(self.clock.seconds)
        self.applied = AppliedLists(self.clock.seconds)
        self.keeper = SiblingsKeeper(self.store, self.applied, Policy(), self.clock.seconds)
        with self._may_fail():
            self.records.recover(set())
        self._seen = self.lifecycle.begin()
        self.keeper.begin()

    def reconcile(self) -> None:
        """Turns of the life cycle, and of siblings, until nothing is due."""
        for _ in range(50):
            if not self.turn():
                return

    def turn(self) -> bool:
        """A turn of each of them; returns whether anything is due still."""
        changes = list(self.store.changes(self._seen))
        self._seen = changes[-1].revision if changes else self._seen
        before = {proxy.id: proxy for proxy in self.store.list(GWProxy)}
        self.lifecycle.take_in(changes)
        self.lifecycle.work()
        self._check_departures(before)
        self.keeper.take_in(changes)
        self.keeper.work()
        waits = [self.lifecycle.wait(), self.keeper.wait()]
        return bool(changes) or any(wait is not None and wait <= 0 for wait in waits)

    def begin_runs(self) -> None:
        """What is due begins."""
        busy = set(self.executions)
        due = [
            run
            for run in self.records.queued()
            if not busy & set(run.spec.nodes)
            and (run.status.not_before is None or run.status.not_before <= self.clock())
        ]
        if not due:
            return
        with self._may_fail(), self.store.transaction() as transaction:
            runs = self.records.begin(transaction, due)
            nodes = [n for n in transaction.list(Node) if n.name in runs and not n.status.lost]
            groups, proxies = transaction.list(LBServiceGroup), transaction.list(GWProxy)
            unreadable = find_unreadable(transaction)
            plans = plan_nodes(nodes, proxies, groups, "1", DEFAULT_POOLS.inside6, unreadable)
        if all(self.store.get(Run, "", run.name).status.state == "running" for run in due):
            begun = self.clock.seconds()
            self.executions |= {n: Execution(run, plans.get(n), begun) for n, run in runs.items()}

    def end_run(self, name: str, *, failure: str = "") -> None:
        """A run that is under way reaches its node and ends; `failure`: before or after its work."""
        execution = self.executions.get(name)
        if execution is None:
            return
        if execution.hangs:
            if self.clock.seconds() - execution.begun < RunSettings.timeout_seconds:
                return
            failure = "before"
        if execution.outcome is None:
            execution.outcome = self._executed(name, execution.plan, failure)
        try:
            self.records.finish(execution.run, execution.plan, execution.outcome, canceled=False)
        except StorageFull:
            return
        del self.executions[name]

    def _executed(self, name: str, plan: NodePlan | None, failure: str) -> NodeOutcome:
        node = self.epic.get(name)
        if plan is None:
            return NodeOutcome(NodeResult(state="ok"))
        if node is None or not node.connected or failure == "before":
            return NodeOutcome(NodeResult(state="unreachable", message="down"))
        done = node.run(plan)
        if failure == "after":
            return NodeOutcome(NodeResult(state="failed", message="the connection broke"))
        errors = {gateway: error for gateway, (_, error) in done.items() if error}
        actions = {gateway: action for gateway, (action, _) in done.items()}
        result = NodeResult(state="changed", errors=errors)
        return NodeOutcome(result, actions, tuple(sorted(node.envoys)))

    def published(self, name: str) -> Snapshot | None:
        """What the control plane has for a node now."""
        node = self.store.find(Node, "", name)
        if node is None or node.status.lost:
            return None
        objects, siblings = self._read()
        parts, placed = [], []
        for gateway in objects.gateways():
            inputs = objects.inputs(gateway)
            assert inputs is not None
            by_node = gateway_parts(inputs, None, DEFAULT_POOLS).by_node
            if name in by_node:
                parts.append(by_node[name])
                instances = inputs.proxy.status.instances
                placed += [Placed(str(gateway), i) for i in instances if i.node == name]
        return node_snapshot(parts, siblings.of(name), node_state(node, placed))

    def _read(self) -> tuple[ObjectIndex, SiblingLists]:
        revision = self.store.revision
        if self._objects[0] != revision:
            objects, siblings = ObjectIndex(), SiblingLists()
            for kind in (*KINDS, Siblings):
                for obj in self.store.list(kind):
                    change = Change(0, kind.kind, obj.account, obj.name, obj)
                    objects.apply(change)
                    siblings.apply(change)
            self._objects = (revision, objects, siblings)
        return self._objects[1:]

    # What nodes do

    def node_works(self, name: str) -> None:
        """A node's agent hears, works and reports."""
        node = self.epic[name]
        revocation = self.store.find(NodeRevocation, "", name)
        revoked = revocation is not None and revocation.metadata.resource_version > node.certified
        before = set(node.announced.values())
        wanted = None if revoked else self.published(name)
        node.work(wanted, self.clock.seconds(), removed=revoked)
        if node.agent and node.connected and wanted is not None:
            self.was_off.discard(name)
        if node.connected and not revoked:
            self.check_announced(node, set(node.announced.values()) - before)
        if node.agent and node.connected and not revoked:
            self.take_report(node)

    def take_report(self, node: EpicNode) -> None:
        """The control plane hears what a node says of itself."""
        report = node.report()
        self.last_report[node.name] = self.clock.seconds()
        lists = applied_siblings(report, self._read()[0].gateways())
        self.keeper.hear(self.applied.take(node.name, lists, self._silent(node)))
        states = {state.gateway: state for state in report.instances}
        with self._may_fail(), self.store.transaction() as transaction:
            self._change_instances(transaction, node.name, lambda proxy: reported(proxy, node.name, states))
            stored = transaction.find_readable(Node, "", node.name)
            if stored is not None:
                transaction.update(heard(stored, report, self.clock()))

    def _silent(self, node: EpicNode) -> set[str]:
        """The addresses of nodes that do not answer it: those that are switched off."""
        others = {s.node: s.address for gateway in node.siblings for s in node.known(gateway).siblings}
        return {address for name, address in others.items() if self.epic[name].is_off}

    def notice_silence(self) -> None:
        """The control plane sees which nodes do not report."""
        for node in self.epic.values():
            if not (node.agent and node.connected):
                with self._may_fail(), self.store.transaction() as transaction:
                    self._change_instances(transaction, node.name, lambda p, n=node.name: silent(p, n))

    def _change_instances(self, transaction: Transaction, node: str, change: Any) -> None:
        for proxy in transaction.list(GWProxy):
            if any(i.node == node and i.published for i in proxy.status.instances):
                transaction.update(change(proxy))

    def workload_works(self, name: tuple[str, str]) -> None:
        """A workload node hears and carries out its list of tunnels."""
        node = self.workload[name]
        if not node.connected:
            return
        revision = self.store.revision
        node.tunnels = {
            int(tunnel.name): TunnelEnd(
                f"{tunnel.account}.{tunnel.spec.proxy}",
                str(tunnel.spec.inside_address),
                frozenset(bytes.fromhex(key.secret.get_secret_value()) for key in tunnel.spec.keys),
            )
            for tunnel in self.store.list(Tunnel, node.account)
            if tunnel.spec.node_name == node.name and not tunnel.deleting
        }
        node.applied = revision

    def _evidence(self, tunnel: Tunnel) -> Evidence:
        name = tunnel.spec.epic_node
        stored, node = self.store.find(Node, "", name), self.epic.get(name)
        number = int(tunnel.name)
        may_have = node is None or not (node.connected and node.agent) or node.held is None
        has = node is not None and (
            number in node.tunnels or (node.held is not None and tunnel.name in node.held[TUNNEL])
        )
        return Evidence(
            epic_node_known=stored is not None and not stored.status.lost,
            epic_end=may_have or has,
            workload_end=True,
            applied=self.workload[tunnel.account, tunnel.spec.node_name].applied,
            silent_since=self.clock(),
        )

    @contextmanager
    def _may_fail(self) -> Iterator[None]:
        try:
            yield
        except StorageFull:
            assert isinstance(self.store, FullDisk) and self.store.full

    def check_announced(self, node: EpicNode, gateways: set[str]) -> None:
        """A node has begun to announce these gateways."""

    def check_departure(self, proxy: GWProxy, left: str) -> None:
        """An instance has left service on this node, and others serve."""

    def _check_departures(self, before: dict[Any, GWProxy]) -> None:
        """No gateway lost its only serving instance, or two at once, if another could serve."""
        for proxy in self.store.list(GWProxy):
            old = before.get(proxy.id)
            if old is None or proxy.deleting:
                continue
            was = {i.node: i for i in old.status.instances}
            left = [i for i in proxy.status.instances if _left(was.get(i.node), i)]
            serving = [i for i in proxy.status.instances if i.ready and i.announced and not i.draining]
            assert len(left) <= 1, f"{proxy.id}: {[i.node for i in left]} left service at once"
            for one in left:
                if one.goal == "restart" and len(proxy.status.instances) == 1:
                    continue
                assert serving, f"{proxy.id}: nobody serves"
                heard = any(not self._is_unheard(i.node) for i in serving)
                assert heard or self._may_be_unheard(one.node), f"{proxy.id}: no router hears who serves"
                self.check_departure(proxy, one.node)

    def _may_be_unheard(self, node: str) -> bool:
        stored = self.store.find(Node, "", node)
        return self._is_unheard(node) or (stored is not None and stored.spec.unheard_ok)

    def _is_unheard(self, node: str) -> bool:
        stored = self.store.find(Node, "", node)
        return stored is not None and stored.status.unheard


def _left(before: ProxyInstance | None, after: ProxyInstance) -> bool:
    return before is not None and before.announced and not before.draining and after.draining


def use_clock(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Let all of EPIC live in the model's time."""
    original = base.now
    for name, module in list(sys.modules.items()):
        if name.startswith("epic.") and getattr(module, "now", None) is original:
            monkeypatch.setattr(module, "now", clock)
