# SPDX-License-Identifier: Apache-2.0
"""Pure: what hellos and their answers tell of a tunnel. Small, for a node may have thousands."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field

HELLO_SECONDS = 5.0
DEAD_SECONDS = 16.0
"""Three hellos are missing."""

# Until the first answer: what waits for a new tunnel must not wait for the next regular hello. The EPIC node
# may have much to do before it has the tunnel, so hellos become rarer with the time that it takes.
_FIRST_SECONDS, _FIRST_PART = 0.5, 0.1
_JITTER = 0.1
# Without an answer for so long a hello counts as lost.
_LATE_SECONDS = 2.0
REMEMBERED = 60


@dataclass(slots=True)
class Health:
    """All lanes of a tunnel together; times are monotonic seconds."""

    since: float = 0.0
    next_hello: float = 0.0
    alive: bool = False
    direct: bool = False
    """The EPIC node sees us where we are: there is no NAT."""
    generation: int = 0
    """Of the EPIC node's counters, which it believes hellos of only."""
    round_trip: float | None = None
    last_answer: float | None = None
    _sent: int = 0
    _unbelieved: int = 0
    _waiting: dict[int, float] = field(default_factory=dict)
    _trips: array[float] = field(default_factory=lambda: array("f"))

    @property
    def round_trips(self) -> tuple[float, ...]:
        """Those of the last hellos that were answered."""
        return tuple(trip for trip in self._trips if not math.isnan(trip))

    def loss(self, now: float) -> float | None:
        """The part of the last hellos that was lost; None while there are none to tell by."""
        late = sum(now - at > _LATE_SECONDS for at in list(self._waiting.values()))
        lost = late + sum(math.isnan(trip) for trip in self._trips)
        known = late + len(self._trips)
        return lost / known if known else None

    def sent(self, counter: int, now: float) -> None:
        """A hello with this counter was sent."""
        for before in [c for c, at in self._waiting.items() if now - at > _LATE_SECONDS]:
            del self._waiting[before]
            self._note(math.nan)
        self._waiting[counter] = now
        self._sent = counter

    def pause(self, now: float, spread: float) -> float:
        """When to say hello again after doing so now; `spread` is a random number from -1 to 1."""
        pause = HELLO_SECONDS
        if self.last_answer is None:
            pause = min(max(_FIRST_SECONDS, (now - self.since) * _FIRST_PART), HELLO_SECONDS)
        return now + pause * (1 + _JITTER * spread)

    def meet(self, generation: int) -> None:
        """An answer tells another generation: the hellos so far, in all lanes, were not believed."""
        self.generation, self._unbelieved = generation, self._sent
        self._waiting.clear()

    def answered(self, counter: int, now: float, round_trip: float, *, direct: bool = False) -> None:
        """The hello with this counter was answered."""
        if counter <= self._unbelieved:
            return
        if self._waiting.pop(counter, None) is not None:
            self._note(round_trip)
        self.round_trip, self.last_answer, self.direct = round_trip, now, direct
        if not self.alive:
            self.alive = True
            self.next_hello = max(self.next_hello, now + HELLO_SECONDS * (1 - _JITTER))

    def is_silent(self, now: float) -> bool:
        """Whether a tunnel that lived answers no more."""
        return self.alive and self.last_answer is not None and now - self.last_answer > DEAD_SECONDS

    def _note(self, round_trip: float) -> None:
        self._trips.append(round_trip)
        if len(self._trips) > REMEMBERED:
            del self._trips[0]
