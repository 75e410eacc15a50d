# SPDX-License-Identifier: Apache-2.0
"""The queue's worker: takes the runs from the store and writes their results back, each node by itself."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv6Network
from typing import Any, Protocol

from epic.ipam.networks import DEFAULT_POOLS
from epic.model.base import Resource
from epic.model.resources import GWProxy, LBServiceGroup, Node
from epic.model.runs import NodeResult, Run
from epic.model.values.naming import GatewayId
from epic.runs.ansible import Outcome
from epic.runs.events import EventHub
from epic.runs.gathering import Gathering
from epic.runs.inventory import NodePlan, Unreadable, plan_nodes
from epic.runs.records import Records
from epic.runs.results import NodeOutcome, ends_node, node_results, outcome, reader_event
from epic.store.interface import Reader, Store
from epic.store.queue import FINISHED
from epic.supervise import TellOnce
from epic.workqueue.backoff import Backoff
from epic.workqueue.threads import ThreadPool

log = logging.getLogger(__name__)

_AT_ONCE = 32
"""Processes of Ansible; one that hangs keeps only its own place."""
_RECORDED_AT_ONCE = 4
_TOGETHER = 100
"""As many runs as every store takes in one commit; the others are begun after them."""
_LOOK_SECONDS = 30.0
"""How often to look whether a node can be read again: until then it is not known what it is to run."""
_SAVE_AGAIN = Backoff(first=1.0, longest=15.0)


class Executor(Protocol):
    """What executes a run."""

    def execute(
        self,
        run: str,
        plans: Mapping[str, NodePlan],
        on_event: Callable[[Mapping[str, Any]], None],
        canceled: Callable[[], bool],
    ) -> Outcome:
        """Run the playbook on these nodes. Blocks until it is done, or `canceled` says so."""


@dataclass
class _Batch:
    """Runs that one process of Ansible executes, by node: each ends when its node is done."""

    runs: dict[str, Run]
    plans: dict[str, NodePlan]
    events: list[dict[str, Any]] = field(default_factory=list)
    raws: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    canceled: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        return next(iter(self.runs.values())).name


class RunQueue:
    """Executes queued runs for as long as `run` is running."""

    def __init__(
        self,
        store: Store,
        executor: Executor,
        hub: EventHub,
        envoy_version: str,
        pool6: IPv6Network = DEFAULT_POOLS.inside6,
    ) -> None:
        self._store = store
        self._records = Records(store)
        self._executor = executor
        self._hub = hub
        self._envoy_version = envoy_version
        self._pool6 = pool6
        self._tell = TellOnce(log)
        self._wake = asyncio.Event()
        self._busy: dict[str, _Batch] = {}
        self._gathering = Gathering()
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPool("run", _AT_ONCE)
        self._recording = ThreadPool("run-records", _RECORDED_AT_ONCE)

    async def run(self) -> None:
        """Work for ever; what is being executed goes on when this is begun again after a fault."""
        since = await self._recording.run(lambda: self._store.revision)
        proxies = await self._recording.run(self._store.list, GWProxy)
        self._gathering = Gathering(proxy.id for proxy in proxies)
        own = {batch.runs[node].name for node, batch in self._busy.items()}
        await self._recording.run(self._records.recover, own)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(since))
            tasks.create_task(self._work())

    async def _watch(self, since: int) -> None:
        async for change in self._store.watch(since):
            if change.kind == Run.kind:
                self._wake.set()
            elif change.kind == GWProxy.kind:
                gateway = GatewayId(change.account, change.name)
                self._gathering.hear(gateway, time.monotonic(), exists=change.object is not None)

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            due, wait = await self._recording.run(self._look, frozenset(self._busy))
            if due and len(self._tasks) < _AT_ONCE:
                batch = await self._recording.run(self._begin, due[:_TOGETHER])
                self._busy |= dict.fromkeys(batch.runs, batch)
                task = asyncio.create_task(self._execute(batch))
                self._tasks.add(task)
                task.add_done_callback(self._ended)
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake.set()

    def _look(self, busy: frozenset[str]) -> tuple[list[Run], float | None]:
        """The runs that are due, or else for how many seconds none will be (None: until one is queued)."""
        for run in self._store.list(Run):
            if run.spec.cancel and run.status.state == "running":
                self._cancel(run)
        queued = [run for run in self._records.queued() if not busy.intersection(run.spec.nodes)]
        unreadable = {name for _, name in _unreadable(self._store, Node)}
        waits = [_LOOK_SECONDS if unreadable & {*run.spec.nodes} else self._wait(run) for run in queued]
        due = [run for run, wait in zip(queued, waits, strict=True) if wait <= 0]
        return due, None if due else min(waits, default=None)

    def _wait(self, run: Run) -> float:
        """For how many seconds the run must not begin."""
        if run.status.not_before is not None:
            return (run.status.not_before - datetime.now(UTC)).total_seconds()
        return max((self._gathering.wait(node, time.monotonic()) for node in run.spec.nodes), default=0.0)

    def _cancel(self, run: Run) -> None:
        for node in run.spec.nodes:
            batch = self._busy.get(node)
            if batch is not None and batch.runs[node].name == run.name:
                batch.canceled.set()

    def _begin(self, due: list[Run]) -> _Batch:
        with self._store.transaction() as transaction:
            runs = self._records.begin(transaction, due)
            nodes = [node for node in transaction.list(Node) if node.name in runs and not node.status.lost]
            plans = plan_nodes(
                nodes,
                transaction.list(GWProxy),
                transaction.list(LBServiceGroup),
                self._envoy_version,
                self._pool6,
                find_unreadable(transaction),
            )
        return _Batch(runs, plans)

    async def _execute(self, batch: _Batch) -> None:
        loop = asyncio.get_running_loop()
        finishing: dict[str, asyncio.Task[None]] = {}
        for node, run in batch.runs.items():
            log.info("run %s begins on %s", run.name, node)
            await self._hub.publish(run.name, {"event": "started", "run": run.name, "nodes": [node]})

        def finish(node: str) -> None:
            if node in batch.plans and node not in finishing:
                finishing[node] = asyncio.create_task(self._finish(batch, node, Outcome(True)))

        def on_event(raw: Mapping[str, Any]) -> None:
            self._take(batch, raw, loop)
            node = ends_node(raw)
            if node is not None:
                loop.call_soon_threadsafe(finish, node)

        ended = Outcome(succeeded=True)
        if batch.plans:
            ended = await self._threads.run(self._run_ansible, batch, on_event)
        left = [node for node in batch.runs if node not in finishing]
        if ended.succeeded:
            ended = Outcome(False, "the playbook has no task for this node")
        await asyncio.gather(*finishing.values(), *(self._finish(batch, node, ended) for node in left))

    def _run_ansible(self, batch: _Batch, on_event: Callable[[Mapping[str, Any]], None]) -> Outcome:
        try:
            return self._executor.execute(batch.name, batch.plans, on_event, batch.canceled.is_set)
        except Exception as error:  # whatever goes wrong is the run's result; the queue goes on
            log.exception("run %s could not be executed", batch.name)
            return Outcome(succeeded=False, failure=f"{type(error).__name__}: {error}")

    def _take(self, batch: _Batch, raw: Mapping[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        host = str((raw.get("event_data") or {}).get("host", ""))
        batch.raws.setdefault(host, []).append(raw)
        event = reader_event(raw)
        if event is None:
            return
        batch.events.append(event)
        readers = [batch.runs[host]] if host in batch.runs else batch.runs.values()
        for run in readers:
            asyncio.run_coroutine_threadsafe(self._hub.publish(run.name, event), loop)

    async def _finish(self, batch: _Batch, node: str, ended: Outcome) -> None:
        """Write what became of a node's run, however long it takes until it can be written."""
        run, plan = batch.runs[node], batch.plans.get(node)
        found = NodeOutcome(NodeResult(state="ok"))
        if plan is not None:
            result = node_results([node], list(batch.events), ended.failure)[node]
            found = outcome(result, batch.raws.get(node, ()))
        for attempt in itertools.count(1):
            try:
                run = await self._recording.run(self._records.finish, run, plan, found, ended.canceled)
                break
            except Exception as error:
                self._tell.fault(f"writing the result of run {run.name}", error)
                await asyncio.sleep(_SAVE_AGAIN.delay(attempt))
        self._tell.success(f"writing the result of run {run.name}")
        del self._busy[node]
        self._gathering.end(node, time.monotonic())
        self._wake.set()
        log.info("run %s on %s: %s %s", run.name, node, run.status.state, run.status.message)
        if run.status.state in FINISHED:
            await self._hub.publish(run.name, {"event": "finished", "run": run.name, **run.status.wire()})


def find_unreadable(reader: Reader) -> Unreadable:
    """What plans are made of, is there and cannot be read."""
    gateways = (GatewayId(*name) for name in _unreadable(reader, GWProxy))
    return Unreadable(frozenset(gateways), frozenset(_unreadable(reader, LBServiceGroup)))


def _unreadable(reader: Reader, kind: type[Resource]) -> list[tuple[str, str]]:
    return [(found.key.account, found.key.name) for found in reader.unreadable(kind)]
