# SPDX-License-Identifier: Apache-2.0
"""Runs as they are kept: what begins, ends, is tried again."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from epic.model.base import now
from epic.model.resources import GWProxy, Node
from epic.model.runs import Run
from epic.runs.evidence import noted
from epic.runs.inventory import NodePlan
from epic.runs.results import NodeOutcome
from epic.store.interface import Store, Transaction
from epic.store.queue import enqueue, forget_old_runs

_BACKOFF_FIRST = 5
_BACKOFF_MAX = 60


def backoff(attempt: int) -> int:
    """Seconds to wait before the retry of that number (from 1)."""
    return min(_BACKOFF_FIRST << min(attempt - 1, 10), _BACKOFF_MAX)


class Records:
    """The runs in the store. Methods block."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def recover(self, own: Collection[str]) -> None:
        """Queue again what an earlier process began, and this one (`own`) does not execute."""
        runs = self._store.list(Run)
        left = [run for run in runs if run.status.state == "running" and run.name not in own]
        if not left:
            return
        with self._store.transaction() as transaction:
            for run in left:
                # A node has one run that waits: what was queued meanwhile does the same.
                twins = [r for r in runs if r.status.state == "queued" and r.spec.nodes == run.spec.nodes]
                for twin in twins:
                    _set(
                        transaction, twin, state="canceled", finished=now(), message=f"run {run.name} does it"
                    )
                _set(transaction, run, state="queued", started=None, not_before=None)

    def queued(self) -> list[Run]:
        """The runs that wait, one a node: those first that were asked for, then retries."""
        queued = [run for run in self._store.list(Run) if run.status.state == "queued"]
        if any(run.spec.cancel for run in queued):
            self._drop([run for run in queued if run.spec.cancel])
            queued = [run for run in queued if not run.spec.cancel]
        queued.sort(key=lambda run: (run.status.not_before is not None, int(run.name)))
        first: dict[tuple[str, ...], Run] = {}
        for run in queued:
            first.setdefault(run.spec.nodes, run)
        return list(first.values())

    def begin(self, transaction: Transaction, due: Collection[Run]) -> dict[str, Run]:
        """Note that these runs have begun; returns them by node."""
        return {
            run.spec.nodes[0]: _set(transaction, run, state="running", started=now())
            for run in (transaction.get(Run, "", run.name) for run in due)
        }

    def finish(self, run: Run, plan: NodePlan | None, outcome: NodeOutcome, canceled: bool) -> Run:
        """Note how the run ended, what it means to gateways, and what is to be tried again.

        One that was ended because of another (`canceled`, though nobody asked for that) waits again.
        """
        node = run.spec.nodes[0]
        with self._store.transaction() as transaction:
            stored = transaction.get(Run, "", run.name)
            stopped = canceled and outcome.failed
            if stopped and not stored.spec.cancel:
                return _set(transaction, stored, state="queued", started=None)
            ended = _set(
                transaction,
                stored,
                state="canceled" if stopped else "failed" if outcome.failed else "succeeded",
                finished=now(),
                nodes={node: outcome.result} if plan else {},
                message=_message(node, outcome) if outcome.failed else "",
            )
            if plan is not None:
                self._note(transaction, plan, outcome, run)
            if transaction.exists(Node, "", node):
                self._repeat(transaction, run, outcome)
            forget_old_runs(transaction)
        return ended

    def _note(self, transaction: Transaction, plan: NodePlan, outcome: NodeOutcome, run: Run) -> None:
        node = transaction.find_readable(Node, "", plan.node.name)
        if node is not None and _born(node) != _born(plan.node):
            return  # What it found is another node's of that name, which was removed meanwhile.
        for proxy in transaction.list(GWProxy):
            after = noted(proxy, plan, outcome, run.name)
            if after is not proxy:
                transaction.update(after)
        if node is not None and outcome.envoy_versions:
            status = node.status.model_copy(update={"envoy_versions": outcome.envoy_versions})
            transaction.update(node.model_copy(update={"status": status}))

    def _repeat(self, transaction: Transaction, run: Run, outcome: NodeOutcome) -> None:
        if outcome.failed:
            attempt = run.status.attempt + 1
            not_before = now() + timedelta(seconds=backoff(attempt))
            enqueue(transaction, run.spec.nodes, attempt=attempt, not_before=not_before)
            return
        for other in transaction.list(Run):
            retry = other.status.state == "queued" and other.status.not_before is not None
            if retry and other.spec.nodes == run.spec.nodes:
                _cancel(transaction, other, f"run {run.name} did it")

    def _drop(self, runs: Collection[Run]) -> None:
        with self._store.transaction() as transaction:
            for run in runs:
                _cancel(transaction, run, "canceled before it began")


def _born(node: Node) -> datetime | None:
    return node.metadata.creation_timestamp


def _message(node: str, outcome: NodeOutcome) -> str:
    if not outcome.succeeded:
        return f"failed on {node}"
    return f"failed on {node} for {', '.join(sorted(outcome.result.errors))}"


def _cancel(transaction: Transaction, run: Run, message: str) -> None:
    _set(transaction, run, state="canceled", finished=now(), message=message)


def _set(transaction: Transaction, run: Run, **update: object) -> Run:
    return transaction.update(run.model_copy(update={"status": run.status.model_copy(update=update)}))
