# SPDX-License-Identifier: Apache-2.0
"""When what serves in the bed did not get to run: nodes of their own would not share two processors."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Event, Thread
from types import TracebackType

_BEAT, _LEAST = 0.05, 0.01


class Waits:
    """`with Waits(serving.processes) as waits:` the tasks of those processes are watched.

    Linux counts how long each task was ready and had no processor, and adds that when it gets one.
    """

    def __init__(self, processes: Callable[[], Iterable[int]]) -> None:
        self._processes = processes
        self._ended = Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self._waited: dict[Path, int] = {}
        self._over: list[tuple[float, Path, float]] = []
        """When it was seen, of which task, and how long it was."""

    def __enter__(self) -> Waits:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def between(self, begun: float, ended: float) -> float:
        """Seconds for which the task did that waited the longest in that time."""
        total = Counter[Path]()
        for seen, task, waited in self._over:
            if begun < seen <= ended + _BEAT:
                total[task] += min(waited, seen - begun)
        return min(max(total.values(), default=0.0), ended - begun)

    def _watch(self) -> None:
        while not self._ended.wait(_BEAT):
            now = time.monotonic()
            tasks = [
                task for process in self._processes() for task in Path(f"/proc/{process}/task").glob("*")
            ]
            found = {task: waited for task in tasks if (waited := _waited(task)) is not None}
            for task, waited in found.items():
                longer = (waited - self._waited.get(task, waited)) / 1e9
                if longer > _LEAST:
                    self._over.append((now, task, longer))
            self._waited = found


def _waited(task: Path) -> int | None:
    """Nanoseconds; None: the task is gone."""
    try:
        return int((task / "schedstat").read_text("ascii").split()[1])
    except OSError:
        return None
