# SPDX-License-Identifier: Apache-2.0
"""The events of the runs of late, in memory, for whoever follows a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

_RUNS_KEPT = 100
_EVENTS_KEPT = 2000

Event = Mapping[str, object]


@dataclass
class _Log:
    events: list[Event] = field(default_factory=list)
    finished: bool = False
    followers: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)


class EventHub:
    """All runs' events. It belongs to one event loop."""

    def __init__(self) -> None:
        self._logs: dict[str, _Log] = {}

    async def publish(self, run: str, event: Event) -> None:
        """Add an event; the event `finished` is a run's last."""
        log = self._log(run)
        async with log.changed:
            if len(log.events) < _EVENTS_KEPT or event["event"] == "finished":
                log.events.append(event)
            log.finished = log.finished or event["event"] == "finished"
            log.changed.notify_all()

    async def follow(self, run: str, *, live: bool) -> AsyncGenerator[Event, None]:
        """The run's events from its first one; `live` waits for further ones until `finished`."""
        log = self._log(run) if live else self._logs.get(run, _Log())
        sent = 0
        log.followers += 1
        try:
            while True:
                for event in log.events[sent:]:
                    sent += 1
                    yield event
                if log.finished or not live:
                    return
                async with log.changed:
                    while len(log.events) == sent:
                        await log.changed.wait()
        finally:
            log.followers -= 1

    def _log(self, run: str) -> _Log:
        if run not in self._logs:
            # Who follows a run is to hear of its end; followers are bounded as connections are.
            idle = [name for name, log in self._logs.items() if not log.followers]
            for name in idle[: max(0, len(self._logs) + 1 - _RUNS_KEPT)]:
                del self._logs[name]
            self._logs[run] = _Log()
        return self._logs[run]
