# SPDX-License-Identifier: Apache-2.0
"""What happens to tunnels at their EPIC end: up, moved, down. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from epic.agent.tunnel.health import DEAD_SECONDS
from epic.bpf.dataplane import TunnelEvent
from epic.proto import epic_pb2

What = Literal["up", "moved", "down"]
Events = Counter[tuple[int, str]]
"""How often what happened to which tunnel."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a tunnel."""

    tunnel: int
    what: What
    text: str


def read_events(found: Iterable[TunnelEvent], alive: Collection[int]) -> list[Event]:
    """What the programs tell; a further lane of a tunnel that lives does not make it come up again."""
    up: set[int] = set(alive)
    events = []
    for event in found:
        if event.kind == "moved" or event.tunnel not in up:
            events.append(Event(event.tunnel, event.kind, _text(event)))
            up.add(event.tunnel)
    return events


def find_silent(
    alive: Collection[int], statuses: Iterable[epic_pb2.TunnelStatus]
) -> tuple[set[int], list[Event]]:
    """Which tunnels live, and those of `alive` that do no more; one that was removed is not down."""
    now: set[int] = set()
    down = []
    for status in statuses:
        if 0 <= status.hello_age <= DEAD_SECONDS:
            now.add(status.id)
        elif status.id in alive:
            where = place(status.observed_address, status.observed_port)
            down.append(Event(status.id, "down", f"tunnel {status.id} is down: no more hellos from {where}"))
    return now, down


def place(address: object, port: int) -> str:
    """Address and port as they are written."""
    return f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"


def _text(event: TunnelEvent) -> str:
    where = place(*event.after)
    if event.kind == "up":
        return f"tunnel {event.tunnel} is up: hellos come from {where}"
    before = place(*event.before) if event.before else "an unknown place"
    lane = f" (lane {event.lane})" if event.lane else ""
    return f"tunnel {event.tunnel}{lane} moved from {before} to {where}"
