# SPDX-License-Identifier: Apache-2.0
"""What a run waits for, pure."""

from __future__ import annotations

from collections.abc import Iterable

from epic.model.runs import Run


def waits_for(run: Run, runs: Iterable[Run]) -> str:
    """Why a queued run has not begun; empty for one that has."""
    if run.status.state != "queued":
        return ""
    nodes = set(run.spec.nodes)
    for other in runs:
        if other.status.state == "running" and nodes & set(other.spec.nodes):
            return f"run {other.name} on {', '.join(sorted(nodes & set(other.spec.nodes)))}"
    if run.status.not_before is not None:
        return f"{run.status.not_before.isoformat()}: it is attempt {run.status.attempt + 1}"
    return "its turn"
