"""The queue's worker: takes the runs from the store, one at a time, and writes their results back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Network
from typing import Any, Protocol

from epic.ipam import DEFAULT_POOLS
from epic.model.base import now
from epic.model.resources import GWProxy, LBServiceGroup, Node
from epic.model.runs import NodeResult, Run
from epic.runs.ansible import Outcome
from epic.runs.events import EventHub
from epic.runs.inventory import NodePlan, plan_nodes
from epic.runs.programmed import programmed
from epic.runs.results import node_results, reader_event
from epic.store.interface import Store, Transaction
from epic.store.queue import enqueue, forget_old_runs

log = logging.getLogger(__name__)

_BACKOFF_FIRST = 5
_BACKOFF_MAX = 60


class Executor(Protocol):
    """What executes a run."""

    def execute(
        self, run: str, plans: Mapping[str, NodePlan], on_event: Callable[[Mapping[str, Any]], None]
    ) -> Outcome:
        """Run the playbook on these nodes. Blocks until it is done."""


def backoff(attempt: int) -> int:
    """Seconds to wait before the retry of that number (from 1)."""
    return min(_BACKOFF_FIRST << min(attempt - 1, 10), _BACKOFF_MAX)


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
        self._executor = executor
        self._hub = hub
        self._envoy_version = envoy_version
        self._pool6 = pool6

    async def run(self) -> None:
        """Work for ever."""
        await asyncio.to_thread(self._recover)
        while True:
            since = await asyncio.to_thread(lambda: self._store.revision)
            due, wait = await asyncio.to_thread(self._next)
            if due is not None:
                await self._execute(due)
            else:
                await self._wait(since, wait)

    def _recover(self) -> None:
        # A run that an earlier process began is begun again: it is idempotent.
        with self._store.transaction() as transaction:
            for run in transaction.list(Run):
                if run.status.state == "running":
                    status = run.status.model_copy(update={"state": "queued", "started": None})
                    transaction.update(run.model_copy(update={"status": status}))

    def _next(self) -> tuple[Run | None, float | None]:
        """The run that is due, or else for how many seconds none will be (None: until one is queued)."""
        time = datetime.now(UTC)
        queued = [run for run in self._store.list(Run) if run.status.state == "queued"]
        queued.sort(key=lambda run: (run.status.not_before is not None, int(run.name)))
        waits = [
            (run.status.not_before - time).total_seconds() if run.status.not_before else 0.0 for run in queued
        ]
        for run, wait in zip(queued, waits, strict=True):
            if wait <= 0:
                return run, None
        return None, min(waits, default=None)

    async def _wait(self, since: int, seconds: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                async with aclosing(self._store.watch(since)) as changes:
                    async for change in changes:
                        if change.kind == Run.kind:
                            return

    async def _execute(self, run: Run) -> None:
        run, plans = await asyncio.to_thread(self._begin, run.name)
        log.info("run %s begins on %s", run.name, ", ".join(plans) or "no node")
        await self._hub.publish(run.name, {"event": "started", "run": run.name, "nodes": list(plans)})
        results = await self._results(run, plans) if plans else {}
        run = await asyncio.to_thread(self._finish, run.name, plans, results)
        log.info("run %s %s: %s", run.name, run.status.state, _summary(results))
        await self._hub.publish(run.name, {"event": "finished", "run": run.name, **run.status.wire()})

    def _begin(self, name: str) -> tuple[Run, dict[str, NodePlan]]:
        with self._store.transaction() as transaction:
            run = transaction.get(Run, "", name)
            status = run.status.model_copy(update={"state": "running", "started": now()})
            run = transaction.update(run.model_copy(update={"status": status}))
            nodes = [node for node in transaction.list(Node) if node.name in run.spec.nodes]
            plans = plan_nodes(
                nodes,
                transaction.list(GWProxy),
                transaction.list(LBServiceGroup),
                self._envoy_version,
                self._pool6,
            )
        return run, plans

    async def _results(self, run: Run, plans: Mapping[str, NodePlan]) -> dict[str, NodeResult]:
        loop = asyncio.get_running_loop()
        events: list[dict[str, Any]] = []

        def on_event(raw: Mapping[str, Any]) -> None:
            event = reader_event(raw)
            if event is not None:
                events.append(event)
                asyncio.run_coroutine_threadsafe(self._hub.publish(run.name, event), loop)

        try:
            outcome = await asyncio.to_thread(self._executor.execute, run.name, plans, on_event)
        except Exception as error:  # whatever goes wrong is the run's result; the queue goes on
            log.exception("run %s could not be executed", run.name)
            outcome = Outcome(succeeded=False, failure=f"{type(error).__name__}: {error}")
        return node_results(plans, events, outcome.failure or "the playbook has no task for this node")

    def _finish(self, name: str, plans: Mapping[str, NodePlan], results: Mapping[str, NodeResult]) -> Run:
        failed = [node for node, result in results.items() if result.state in {"failed", "unreachable"}]
        with self._store.transaction() as transaction:
            run = transaction.get(Run, "", name)
            status = run.status.model_copy(
                update={
                    "state": "failed" if failed else "succeeded",
                    "finished": now(),
                    "nodes": dict(results),
                    "message": f"failed on {', '.join(failed)}" if failed else "",
                }
            )
            run = transaction.update(run.model_copy(update={"status": status}))
            for proxy in transaction.list(GWProxy):
                if any(instance.node in results for instance in proxy.status.instances):
                    transaction.update(programmed(proxy, plans, results))
            self._retry(transaction, run, failed)
            forget_old_runs(transaction)
        return run

    def _retry(self, transaction: Transaction, run: Run, failed: list[str]) -> None:
        known = {node.name for node in transaction.list(Node)}
        nodes = [node for node in failed if node in known]
        if nodes:
            attempt = run.status.attempt + 1
            not_before = datetime.now(UTC) + timedelta(seconds=backoff(attempt))
            enqueue(transaction, nodes, attempt=attempt, not_before=not_before)


def _summary(results: Mapping[str, NodeResult]) -> str:
    return "; ".join(
        f"{node} {result.state}" + (f" ({result.message})" if result.message else "")
        for node, result in sorted(results.items())
    )
