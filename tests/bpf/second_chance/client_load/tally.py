# SPDX-License-Identifier: Apache-2.0
"""What the load counts, phase by phase."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from statistics import median

from pauses import Pauses

SLOW = 0.25
TOLD = 10_000
"""So many slow requests of a phase are described, the first ones."""


@dataclass(frozen=True)
class Slow:
    """A slow request; times as of the monotonic clock."""

    kind: str
    begun: float
    asked: float
    """Later than `begun` if a connection had to be opened for it."""
    ended: float
    lost: int
    """Segments that the client sent again meanwhile, and not for nothing."""
    upstream: int | None
    """Milliseconds from the gateway to the backend and back, as the gateway says."""


@dataclass
class Phase:
    """What happened in it; times in seconds."""

    times: list[float] = field(default_factory=list)
    slow: int = 0
    held: int = 0
    short: int = 0
    told: list[Slow] = field(default_factory=list)

    def note(self, slow: Slow, pauses: Pauses) -> None:
        """A request; a slow one is one for which others than this process took the time."""
        begun, ended = slow.begun, slow.ended
        self.times.append(ended - begun)
        if ended - begun <= SLOW:
            return
        if ended - begun - pauses.between(begun, ended) > SLOW:
            self.slow += 1
            if len(self.told) < TOLD:
                self.told.append(slow)
        else:
            self.held += 1


@dataclass(frozen=True)
class Break:
    """The end of a connection that should have gone on."""

    kind: str
    phase: str
    at: float
    age: float
    why: str


class Tally:
    """Of the whole run."""

    def __init__(self) -> None:
        self.phase = "start"
        self.phases: dict[str, Phase] = {}
        self.broken: list[Break] = []

    def now(self) -> Phase:
        return self.phases.setdefault(self.phase, Phase())

    def breaks(self, kind: str, phase: str, opened: float, why: str) -> None:
        now = time.monotonic()
        self.broken.append(Break(kind, phase, round(now, 3), round(now - opened, 3), why))

    def text(self) -> str:
        phases = {}
        for name, phase in self.phases.items():
            phases[name] = {
                "requests": len(phase.times),
                "slow": phase.slow,
                "held": phase.held,
                "short": phase.short,
                "told": [asdict(slow) for slow in phase.told],
                "worst": round(1000 * max(phase.times, default=0), 1),
                "median": round(1000 * median(phase.times or [0]), 2),
            }
        return json.dumps({"phases": phases, "broken": [asdict(each) for each in self.broken]})
