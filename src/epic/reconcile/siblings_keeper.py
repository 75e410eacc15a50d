# SPDX-License-Identifier: Apache-2.0
"""Leads gateways' siblings on: who waits no more, which keys come and go, who passes packets on now.

What changes instances changes their list in the same transaction (`epic.reconcile.siblings`). Here is what
comes of nodes' words and of time; a gateway costs what it costs by itself, whatever there is besides it.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from epic.errors import NotWritable
from epic.lifecycle.conditions import with_proxy_condition
from epic.model.base import Resource, now
from epic.model.resources import GWProxy, Node
from epic.model.siblings import Siblings, SiblingsSpec
from epic.model.values.naming import GatewayId
from epic.reconcile.siblings import (
    held,
    listed,
    new_secret,
    nodes_of,
    relisted,
    save_siblings,
    stamped,
)
from epic.rotation import Policy
from epic.siblings import rotation
from epic.siblings.condition import LATE, SECOND_CHANCE, second_chance
from epic.siblings.heard import AppliedLists
from epic.siblings.listing import Nodes, dismiss
from epic.siblings.waiting import awaited, forgotten, is_held, late, release
from epic.store.interface import Change, Reader, Store, Transaction
from epic.workqueue.failures import FailureLog
from epic.workqueue.metrics import QueueMetrics
from epic.workqueue.queue import WorkQueue

log = logging.getLogger(__name__)

_AT_ONCE = 50
_TURN_SECONDS = 5.0
"""How often to look at every gateway: for the steps of keys, and who is late."""
_LOOK_AGAIN_SECONDS = 1.0
"""How often to look at who is held: some conclusions come with time alone."""


@dataclass(frozen=True)
class _Seen:
    """A gateway, its list if it has one, and the nodes that matter to it."""

    proxy: GWProxy
    siblings: Siblings | None
    nodes: Nodes

    @property
    def spec(self) -> SiblingsSpec | None:
        return self.siblings.spec if self.siblings is not None else None


class SiblingsKeeper:
    """The work itself. It belongs to one thread at a time, but for `hear`."""

    def __init__(
        self,
        store: Store,
        applied: AppliedLists,
        policy: Policy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._clock = clock
        self._applied = applied
        self._policy = policy
        self._held: set[GatewayId] = set()
        self._on_node: dict[str, set[GatewayId]] = defaultdict(set)
        self._nodes: dict[GatewayId, frozenset[str]] = {}
        self._lists: dict[GatewayId, SiblingsSpec] = {}
        self._late: set[GatewayId] = set()
        self._told: dict[str, tuple[object, ...]] = {}
        self._failures: FailureLog[GatewayId] = FailureLog(log)
        self._heard: deque[GatewayId] = deque()
        self._next_turn = clock()
        self.queue: WorkQueue[GatewayId] = WorkQueue(clock)

    def begin(self) -> int:
        """Read everything; returns the revision from which changes are to be taken in."""
        revision = self._store.revision
        self._held.clear()
        self._nodes.clear()
        self._late.clear()
        self._lists = {GatewayId(s.account, s.name): s.spec for s in self._store.list(Siblings)}
        self._on_node.clear()
        self._told = {node.name: _matters(node) for node in self._store.list(Node)}
        for proxy in self._store.list(GWProxy):
            self._take_proxy(proxy.id, proxy)
        return revision

    def take_in(self, changes: Iterable[Change]) -> None:
        """Note what has changed in the store."""
        for change in changes:
            if change.kind == GWProxy.kind:
                self._take_proxy(GatewayId(change.account, change.name), change.object)
            elif change.kind == Siblings.kind:
                gateway = GatewayId(change.account, change.name)
                self._lists.pop(gateway, None)
                if isinstance(change.object, Siblings):
                    self._lists[gateway] = change.object.spec
            elif change.kind == Node.kind:
                self._take_node(change.name, change.object)

    def hear(self, gateways: Iterable[GatewayId]) -> None:
        """Nodes have said that they have other lists of these gateways than before."""
        self._heard.extend(gateways)

    def wait(self) -> float | None:
        """Seconds until something is due."""
        turn = max(0.0, self._next_turn - self._clock())
        queued = self.queue.wait()
        return turn if queued is None else min(turn, queued)

    def measure(self) -> QueueMetrics:
        """How much is due, and how it goes."""
        return self.queue.metrics()

    def work(self) -> None:
        """Do what is to be done for some of the gateways that are due."""
        while self._heard:
            gateway = self._heard.popleft()
            # The others are looked at in their turn: nobody waits for them.
            if gateway in self._held or (gateway in self._lists and self._lists[gateway].leaving):
                self.queue.add(gateway)
        if self._clock() >= self._next_turn:
            self._next_turn = self._clock() + _TURN_SECONDS
            for gateway in self._lists:
                if not self._rests(gateway):
                    self.queue.add(gateway)
        with self.queue.work(_AT_ONCE) as gateways:
            due = [gateway for gateway in gateways if self._is_due(gateway)]
            if due and not self._try(due, quiet=True):
                for gateway in due:
                    self._try([gateway], quiet=False)

    def _take_proxy(self, gateway: GatewayId, obj: Resource | None) -> None:
        for node in self._nodes.pop(gateway, ()):
            self._on_node[node].discard(gateway)
        self._held.discard(gateway)
        self._late.discard(gateway)
        if not isinstance(obj, GWProxy):
            return
        instances = obj.status.instances
        self._nodes[gateway] = frozenset(instance.node for instance in instances)
        for node in self._nodes[gateway]:
            self._on_node[node].add(gateway)
        if any(instance.hold for instance in instances):
            self._held.add(gateway)
        if _is_late(obj):
            self._late.add(gateway)
        self.queue.add(gateway)

    def _take_node(self, name: str, obj: Resource | None) -> None:
        before = self._told.pop(name, None)
        if isinstance(obj, Node):
            self._told[name] = _matters(obj)
        if before != self._told.get(name):
            for gateway in self._on_node.get(name, ()):
                self.queue.add(gateway)

    def _rests(self, gateway: GatewayId) -> bool:
        """Whether time alone brings nothing for the gateway: nearly always."""
        spec = self._lists[gateway]
        if spec.former or spec.leaving or len(spec.keys) > 1 or gateway in self._late:
            return False
        said = self._applied.said(gateway, spec.nodes)
        if any(said[node].version != spec.version for node in spec.nodes):
            return False
        return rotation.next_step(str(gateway), spec, said, now(), self._policy) is None

    def _is_due(self, gateway: GatewayId) -> bool:
        """Whether anything seems to be left to do; the transaction looks again."""
        if gateway in self._held:
            self.queue.add(gateway, _LOOK_AGAIN_SECONDS)
        try:
            seen = _look(self._store, gateway)
            return seen is not None and self._next(seen) != (seen.proxy, seen.spec)
        except Exception:  # the transaction meets the same, and tells
            return True

    def _try(self, gateways: list[GatewayId], *, quiet: bool) -> bool:
        try:
            with self._store.transaction() as transaction:
                for gateway in gateways:
                    self._do(transaction, gateway)
        except NotWritable as error:  # no gateway is at fault: each by itself would meet the same
            self._fail(gateways, error)
            return True
        except Exception as error:  # a fault with one gateway must not hold up the others
            if not quiet:
                self._fail(gateways, error)
            return False
        for gateway in gateways:
            if self.queue.succeeded(gateway):
                self._failures.succeeded(gateway, f"siblings of {gateway}")
        return True

    def _do(self, transaction: Transaction, gateway: GatewayId) -> None:
        seen = _look(transaction, gateway)
        if seen is None:
            return
        proxy, spec = self._next(seen)
        save_siblings(transaction, gateway, seen.siblings, spec)
        transaction.update(proxy)
        if spec is not None and _is_late(proxy) and not _is_late(seen.proxy):
            nodes = late(spec, self._applied.said(gateway, spec.nodes), now())
            log.warning("siblings of %s: %s: without the newest list", gateway, ", ".join(nodes))

    def _next(self, seen: _Seen) -> tuple[GWProxy, SiblingsSpec | None]:
        """The gateway and its list as they are to be now."""
        moment, gateway = now(), seen.proxy.id
        spec = relisted(seen.proxy, seen.spec, seen.nodes)
        instances = held(seen.proxy.status.instances, seen.spec, spec)
        said = self._applied.said(gateway, spec.nodes if spec is not None else ())
        waiting: dict[str, tuple[str, ...]] = {}
        if spec is not None:
            instances = tuple(
                i if not i.hold or is_held(spec, i, said, moment) else i.model_copy(update={"hold": ""})
                for i in instances
            )
            spec = release(spec, said)
            silent = self._applied.silent(spec.siblings)
            if left := forgotten(spec, said, silent):
                spec = stamped(gateway, dismiss(spec, left, moment, new_secret()))
            step = rotation.next_step(str(gateway), spec, said, moment, self._policy)
            if step is not None:
                spec = stamped(gateway, rotation.take(spec, step, moment, new_secret()))
            waiting = awaited(spec, said, silent, moment)
        instances = listed(instances, spec, waiting)
        status = seen.proxy.status.model_copy(update={"instances": instances})
        condition = second_chance(instances, spec, seen.nodes, said, moment)
        return with_proxy_condition(seen.proxy.model_copy(update={"status": status}), condition), spec

    def _fail(self, gateways: list[GatewayId], error: Exception) -> None:
        for gateway in gateways:
            self.queue.failed(gateway)
            self._failures.failed(gateway, f"siblings of {gateway}", error)


def _look(reader: Reader, gateway: GatewayId) -> _Seen | None:
    """The gateway as it is now; None: it is gone, or stays as it is, for it or its list cannot be read."""
    proxy = reader.find_readable(GWProxy, gateway.account, gateway.proxy)
    siblings = reader.find_readable(Siblings, gateway.account, gateway.proxy)
    if proxy is None or (siblings is None and reader.exists(Siblings, gateway.account, gateway.proxy)):
        return None
    return _Seen(proxy, siblings, nodes_of(reader, proxy, siblings.spec if siblings is not None else None))


def _is_late(proxy: GWProxy) -> bool:
    """Whether the gateway says of itself that a node is without its newest list."""
    return any(c.type == SECOND_CHANCE and c.reason == LATE for c in proxy.status.conditions)


def _matters(node: Node) -> tuple[object, ...]:
    status = node.status
    return node.spec.address, status.second_chance, status.second_chance_refusal, status.lost
