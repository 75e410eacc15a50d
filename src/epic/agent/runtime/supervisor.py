# SPDX-License-Identifier: Apache-2.0
"""The tasks of an agent: one that fails stops nothing but itself, and runs again."""

from __future__ import annotations

import asyncio
import collections
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from epic.agent.runtime.log_once import LogOnce
from epic.agent.runtime.systemd import notify
from epic.supervise import run_apart

log = logging.getLogger(__name__)

Work = Callable[[], Awaitable[None]]
"""Makes a coroutine that runs until it is cancelled; one that returns has nothing to do (any more)."""

_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 30.0
# A task that ran for so long before it failed has not failed in a row.
_STEADY_SECONDS = 60.0


class _Task(NamedTuple):
    work: Work
    vital: bool


class Supervisor:
    """Runs tasks until it is told to stop. `failures` counts by task how often one failed.

    A failure is logged when it is another one than before, and the task runs again after a pause that grows
    from half a second to half a minute. A `vital` task that fails ends the agent: systemd starts it anew.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, _Task] = {}
        self._troubles = LogOnce(log)
        self.failures: collections.Counter[str] = collections.Counter()

    @property
    def problems(self) -> tuple[str, ...]:
        """Tasks that failed and wait for their next turn, a line each."""
        return self._troubles.problems

    def add(self, name: str, work: Work, *, vital: bool = False) -> None:
        """A task for `run`; its name is a label of the metric."""
        self._tasks[name] = _Task(work, vital)

    async def run(self, stop: asyncio.Event) -> None:
        """Run all tasks, tell systemd that the agent is ready, and end them all at `stop`.

        Raises what a vital task raised.
        """
        async with asyncio.TaskGroup() as group:
            running = [
                group.create_task(self._keep_running(name, task), name=name)
                for name, task in self._tasks.items()
            ]
            notify("READY=1")
            await stop.wait()
            notify("STOPPING=1")
            for task in running:
                task.cancel()

    async def _keep_running(self, name: str, task: _Task) -> None:
        loop = asyncio.get_running_loop()
        pause = _FIRST_SECONDS
        while True:
            begun = loop.time()
            steady = loop.call_later(_STEADY_SECONDS, self._troubles.report, name, "")
            try:
                await run_apart(task.work)
            except Exception as error:
                self.failures[name] += 1
                if task.vital:
                    raise
                if loop.time() - begun > _STEADY_SECONDS:
                    pause = _FIRST_SECONDS
                self._troubles.report(name, f"{name} failed: {_last_line(error)}")
                log.debug("%s failed, again in %.1f s", name, pause, exc_info=error)
            else:
                return
            finally:
                steady.cancel()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_SECONDS)


def _last_line(error: Exception) -> str:
    """The error and where it arose, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
