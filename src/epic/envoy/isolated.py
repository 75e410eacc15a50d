# SPDX-License-Identifier: Apache-2.0
"""Rendering of tenants' templates in a process of its own, for a template can be written to run for ever."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence

from epic.envoy.resources import Document
from epic.envoy.templating import Task, title
from epic.errors import Invalid
from epic.processes import communicate

_SECONDS = 10
_COMMAND = (sys.executable, "-I", "-m", "epic.envoy.worker")


async def documents(tasks: Sequence[Task]) -> list[Document]:
    """Render and parse all templates; what renders to nothing is left out. Raises Invalid."""
    if not tasks:
        return []
    bodies = zip(tasks, await _rendered(tasks), strict=True)
    return [(task, body) for task, body in bodies if body is not None]


async def _rendered(tasks: Sequence[Task]) -> list[dict[str, object] | None]:
    output, code = await _run(await asyncio.to_thread(_job, tasks))
    if code != 0:
        names = ", ".join(sorted({repr(task.template.name) for task in tasks}))
        raise Invalid(f"The templates {names} need too much time or memory to be rendered")
    return await asyncio.to_thread(_results, tasks, output)


def _job(tasks: Sequence[Task]) -> bytes:
    return b"\n".join(json.dumps([task.template.value, task.variables]).encode() for task in tasks)


def _results(tasks: Sequence[Task], output: bytes) -> list[dict[str, object] | None]:
    results = []
    for task, line in zip(tasks, output.splitlines(), strict=True):
        body, fault = json.loads(line)
        if fault is not None:
            raise Invalid(f"{title(task)}: {fault}")
        results.append(body)
    return results


async def _run(job: bytes) -> tuple[bytes, int]:
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*_COMMAND, stdin=pipe, stdout=pipe, stderr=null, env={})
    try:
        async with asyncio.timeout(_SECONDS):
            output, _ = await communicate(process, job)
    except TimeoutError:
        return b"", -1
    return output, process.returncode or 0
