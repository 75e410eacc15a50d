"""What happens to tunnels at their EPIC end: up, moved, down. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from epic.proto import epic_pb2

DEAD_SECONDS = 16.0
"""Three hellos are missing."""

What = Literal["up", "moved", "down"]
Events = Counter[tuple[int, str]]
"""How often what happened to which tunnel."""


@dataclass(frozen=True)
class Seen:
    """The far end of a tunnel as it was seen last."""

    alive: bool
    address: str
    port: int


@dataclass(frozen=True)
class Event:
    """Something that happened to a tunnel."""

    tunnel: int
    what: What
    text: str


def look(statuses: Iterable[epic_pb2.TunnelStatus]) -> dict[int, Seen]:
    """Where the far ends are, and whether they live."""
    return {
        s.id: Seen(0 <= s.hello_age <= DEAD_SECONDS, s.observed_address, s.observed_port) for s in statuses
    }


def between(before: Mapping[int, Seen], after: Mapping[int, Seen]) -> list[Event]:
    """What happened from one look to the next; a tunnel that was removed is not down."""
    found: list[Event] = []
    for id_, seen in sorted(after.items()):
        last = before.get(id_)
        where = f"{seen.address}:{seen.port}"
        if last is not None and last.address and seen.address and _place(last) != _place(seen):
            text = f"tunnel {id_} moved from {last.address}:{last.port} to {where}"
            found.append(Event(id_, "moved", text))
        was_alive = last is not None and last.alive
        if seen.alive and not was_alive:
            found.append(Event(id_, "up", f"tunnel {id_} is up: hellos come from {where}"))
        elif was_alive and not seen.alive:
            found.append(Event(id_, "down", f"tunnel {id_} is down: no more hellos from {where}"))
    return found


def _place(seen: Seen) -> tuple[str, int]:
    return seen.address, seen.port
