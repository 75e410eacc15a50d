# SPDX-License-Identifier: Apache-2.0
"""Leads gateways, nodes and deleted tunnels through their lives: one key at a time, each failing alone."""

from __future__ import annotations

import logging
from contextlib import suppress

from epic.errors import NotWritable
from epic.heartbeats import Heartbeats
from epic.lifecycle import nodes as node_life
from epic.lifecycle.tunnels import is_released
from epic.model.base import now
from epic.model.resources import Tunnel
from epic.model.values.naming import GatewayId
from epic.reconcile.current import CurrentWorld
from epic.reconcile.turn import (
    LifecycleSettings,
    TunnelEvidence,
    Turn,
    is_work,
    may_have_more,
    next_step,
    replicas,
)
from epic.reconcile.world import Key, Lives
from epic.store.interface import Change, Store
from epic.workqueue.failures import FailureLog
from epic.workqueue.metrics import QueueMetrics
from epic.workqueue.queue import WorkQueue

log = logging.getLogger(__name__)

_AT_ONCE = 20
_LOOK_SECONDS = {
    "gateway": 5.0,
    "node": 10.0,
    "plan": 60.0,
    "tunnels": 2.0,
    "quarantine": 10.0,
    "release": 600.0,
}
"""How often to look again at what waits for time, for room or for somebody's word."""


class Lifecycle:
    """The work itself. It belongs to one thread at a time."""

    def __init__(
        self, store: Store, settings: LifecycleSettings, evidence: TunnelEvidence, heartbeats: Heartbeats
    ) -> None:
        self._store = store
        self._settings = settings
        self._evidence = evidence
        self._heartbeats = heartbeats
        self.current = CurrentWorld(store)
        # To look is cheap and needs no lock; what is done is looked up in the current world.
        self._lives = Lives()
        self._failures: FailureLog[Key] = FailureLog(log)
        self._turns = 0
        self.queue: WorkQueue[Key] = WorkQueue()

    def begin(self) -> int:
        """Read everything; returns the revision from which changes are to be taken in."""
        revision = self._store.revision
        self._lives = Lives.of(self._store)
        with suppress(NotWritable):  # somebody who writes is at it
            self.current.prepare()
        accounts = {tunnel.account for tunnel in self._store.list(Tunnel) if tunnel.deleting}
        for key in self._lives.keys() | {Key("tunnels", account, "") for account in accounts}:
            self.queue.add(key)
        return revision

    def take_in(self, changes: list[Change]) -> None:
        """Note what has changed in the store."""
        for change in changes:
            for key in self._lives.apply(change):
                self.queue.add(key)

    def work(self) -> None:
        """Look at some of the keys that are due, and do what is to be done."""
        with self.queue.work(_AT_ONCE) as keys:
            due = [key for key in keys if self._is_due(key)]
            if due and not self._try(due, quiet=True):
                for key in due:
                    self._try([key], quiet=False)

    def wait(self) -> float | None:
        """Seconds until a key is due; None: there is none."""
        return self.queue.wait()

    def measure(self) -> QueueMetrics:
        """How much is due, and how it goes."""
        return self.queue.metrics()

    def _try(self, keys: list[Key], *, quiet: bool) -> bool:
        """Do the work of the keys together; one alone that fails is tried again later."""
        try:
            with self.current.transaction() as (transaction, world):
                self._turns += 1
                turn = Turn(transaction, world, self._settings, self._evidence, self._heartbeats, self._turns)
                for key in keys:
                    turn.do(key)
                turn.finish()
        except NotWritable as error:  # no key is at fault: each by itself would meet the same
            self._fail(keys, error)
            return True
        except Exception as error:  # a fault with one key must not hold up the others
            if not quiet:
                self._fail(keys, error)
            return False
        for key in turn.again:
            self.queue.add(key)
        for key in keys:
            if self.queue.succeeded(key):
                self._failures.succeeded(key, _title(key))
        return True

    def _fail(self, keys: list[Key], error: Exception) -> None:
        for key in keys:
            self.queue.failed(key)
            self._failures.failed(key, _title(key), error)

    def _is_due(self, key: Key) -> bool:
        """Whether anything seems to be left to do; the transaction looks again."""
        try:
            if key.kind == "node":
                waits, due = _look_at_node(self._lives, self._heartbeats, key)
            else:
                waits, due = _look(self._lives, self._settings, self._evidence, key)
        except Exception:  # the transaction meets the same, and tells
            return True
        if waits:
            self.queue.add(key, _LOOK_SECONDS[key.kind])
        return due


def _title(key: Key) -> str:
    return f"{key.kind} {key.account}/{key.name}"


def _look(lives: Lives, settings: LifecycleSettings, evidence: TunnelEvidence, key: Key) -> tuple[bool, bool]:
    """Whether the key is to be looked at again without a change, and whether something is due."""
    if key.kind == "gateway":
        proxy = lives.proxies.get(GatewayId(key.account, key.name))
        if proxy is None:
            return False, False
        step = next_step(lives, proxy, settings)
        waits = any(i.reason for i in step.instances) or len(step.instances) < replicas(lives, proxy)
        return waits, is_work(proxy, step)
    if key.kind in {"plan", "tunnels"}:
        return _look_at_tunnels(lives, evidence, key)
    until = lives.held_until(key)
    return until is not None, until is not None and until <= now()


def _look_at_node(lives: Lives, heartbeats: Heartbeats, key: Key) -> tuple[bool, bool]:
    node = lives.nodes.get(key.name)
    if node is None:
        return False, False
    placed, heard = lives.placed(key.name), heartbeats.of(key.name)
    settled = node_life.settled(node, placed, now(), heard, may_have_more=may_have_more(lives, key.name))
    return True, node_life.is_gone(node, placed) or settled != node


def _look_at_tunnels(lives: Lives, evidence: TunnelEvidence, key: Key) -> tuple[bool, bool]:
    if key.kind == "plan":
        waiting = bool(lives.waiting(key.account))
        # Of those keys that go on in the middle none is repeated.
        return waiting and not key.name, waiting or bool(lives.backlog(key.account))
    going = lives.tunnels.going(key.account)
    return bool(going), any(is_released(t, evidence(t), now()) for t in going)
