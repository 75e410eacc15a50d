# SPDX-License-Identifier: Apache-2.0
"""The queue of runs, kept in the store so that a run is queued together with the write that needs it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from epic.model.base import Metadata
from epic.model.runs import Run, RunSpec, RunStatus
from epic.store.interface import Transaction

FINISHED = frozenset({"succeeded", "failed", "canceled"})
_FINISHED_KEPT = 100


def enqueue(
    transaction: Transaction, nodes: Iterable[str], *, attempt: int = 0, not_before: datetime | None = None
) -> list[Run]:
    """Queue a run for each of these nodes; one that waits already will do.

    A retry (with `not_before`) joins only a retry: what a user asked for never waits for one.
    """
    waiting = {
        run.spec.nodes: run
        for run in transaction.list(Run)
        if run.status.state == "queued" and (run.status.not_before is None) == (not_before is None)
    }
    return [
        _joined(transaction, waiting[(node,)], attempt, not_before)
        if (node,) in waiting
        else transaction.create(
            Run(
                metadata=Metadata(name=str(transaction.next_number("run"))),
                spec=RunSpec(nodes=(node,)),
                status=RunStatus(attempt=attempt, not_before=not_before),
            )
        )
        for node in sorted(set(nodes))
    ]


def forget_old_runs(transaction: Transaction) -> None:
    """Delete all finished runs but the newest."""
    finished = [r for r in transaction.list(Run) if r.status.state in FINISHED]
    for run in sorted(finished, key=lambda r: int(r.name))[:-_FINISHED_KEPT]:
        transaction.delete(Run, "", run.name)


def _joined(transaction: Transaction, run: Run, attempt: int, not_before: datetime | None) -> Run:
    before = run.status.not_before
    if not_before is None or before is None:
        return run
    update = {"attempt": max(run.status.attempt, attempt), "not_before": max(before, not_before)}
    return transaction.update(run.model_copy(update={"status": run.status.model_copy(update=update)}))
