# SPDX-License-Identifier: Apache-2.0
"""What the load counts, phase by phase."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from statistics import median

from pauses import Pauses

SLOW = 0.25


@dataclass
class Phase:
    """What happened in it; times in seconds."""

    times: list[float] = field(default_factory=list)
    slow: int = 0
    held: int = 0
    short: int = 0

    def note(self, begun: float, ended: float, pauses: Pauses) -> None:
        """A request; a slow one is one for which others than this process took the time."""
        self.times.append(ended - begun)
        if ended - begun <= SLOW:
            return
        if ended - begun - pauses.between(begun, ended) > SLOW:
            self.slow += 1
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
                "worst": round(1000 * max(phase.times, default=0), 1),
                "median": round(1000 * median(phase.times or [0]), 2),
            }
        return json.dumps({"phases": phases, "broken": [asdict(each) for each in self.broken]})
