"""The queue of runs, kept in the store so that a run is queued together with the write that needs it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from epic.model.base import Metadata
from epic.model.runs import Run, RunSpec, RunStatus
from epic.store.interface import Transaction

_FINISHED_KEPT = 100


def enqueue(
    transaction: Transaction, nodes: Iterable[str], *, attempt: int = 0, not_before: datetime | None = None
) -> Run:
    """Queue the run `gateways` for these nodes; a run that waits already takes them over.

    A retry (with `not_before`) joins only other retries: what a user asked for never waits for one.
    """
    for run in transaction.list(Run):
        if run.status.state == "queued" and (run.status.not_before is None) == (not_before is None):
            status = run.status
            if not_before is not None and status.not_before is not None:
                later = max(status.not_before, not_before)
                status = status.model_copy(
                    update={"attempt": max(status.attempt, attempt), "not_before": later}
                )
            spec = run.spec.model_copy(update={"nodes": tuple(sorted({*run.spec.nodes, *nodes}))})
            return transaction.update(run.model_copy(update={"spec": spec, "status": status}))
    return transaction.create(
        Run(
            metadata=Metadata(name=str(transaction.next_number("run"))),
            spec=RunSpec(nodes=tuple(sorted(set(nodes)))),
            status=RunStatus(attempt=attempt, not_before=not_before),
        )
    )


def forget_old_runs(transaction: Transaction) -> None:
    """Delete all finished runs but the newest."""
    finished = [r for r in transaction.list(Run) if r.status.state in {"succeeded", "failed"}]
    for run in sorted(finished, key=lambda r: int(r.name))[:-_FINISHED_KEPT]:
        transaction.delete(Run, "", run.name)
