# SPDX-License-Identifier: Apache-2.0
"""Runs: what is queued, how it went, and what happens right now."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import StreamingResponse

from epic.api.context import Context, Ctx, admin_only
from epic.api.replies import PREFIX, found, shown
from epic.api.sse import event, event_stream
from epic.errors import Conflict
from epic.lifecycle.runs import waits_for
from epic.model.runs import Run
from epic.store.queue import FINISHED

router = APIRouter(prefix="/runs", tags=["runs"], dependencies=[Depends(admin_only)])


@router.get("")
def list_all(ctx: Ctx) -> dict[str, Any]:
    """The runs of late, the newest first."""
    runs = sorted(ctx.store.list(Run), key=lambda run: int(run.name), reverse=True)
    return {"link": {"self": f"{PREFIX}/runs"}, "items": [_shown(run, runs) for run in runs]}


@router.get("/{name}")
def read(ctx: Ctx, name: str) -> dict[str, Any]:
    """A run: its state, each node's result, the failing task's message."""
    path = f"{PREFIX}/runs/{name}"
    run = ctx.store.get(Run, "", name)
    return {"link": {"self": path, "events": f"{path}/events"}, "run": _shown(run, ctx.store.list(Run))}


@router.post("/{name}/cancel", status_code=302)
def cancel(ctx: Ctx, name: str) -> Response:
    """End a run, or keep it from beginning. What its node needs is tried again a little later."""
    with ctx.store.transaction() as transaction:
        run = transaction.get(Run, "", name)
        if run.status.state in FINISHED:
            raise Conflict(f"run {name} has ended already: it {run.status.state}")
        spec = run.spec.model_copy(update={"cancel": True})
        run = transaction.update(run.model_copy(update={"spec": spec}))
    return found(f"{PREFIX}/runs/{name}", {"run": _shown(run, ctx.store.list(Run))})


@router.get("/{name}/events", response_class=StreamingResponse)
def events(ctx: Ctx, name: str) -> StreamingResponse:
    """The run's events as server-sent events, from its first one; the stream ends with the run."""
    return event_stream(_events(ctx, ctx.store.get(Run, "", name)), ctx.closing)


def _shown(run: Run, runs: list[Run]) -> dict[str, Any]:
    wire = shown(run)
    waits = waits_for(run, runs)
    if waits:
        wire["status"]["waits-for"] = waits
    return wire


async def _events(ctx: Context, run: Run) -> AsyncGenerator[bytes, None]:
    live = run.status.state in {"queued", "running"}
    finished = False
    async for item in ctx.run_events.follow(run.name, live=live):
        finished = item["event"] == "finished"
        yield event(str(item["event"]), item)
    if not finished:
        # Its events went with an earlier process; the result is in the store.
        yield event("finished", {"event": "finished", "run": run.name, **run.status.wire()})
