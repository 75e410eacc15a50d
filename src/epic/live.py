# SPDX-License-Identifier: Apache-2.0
"""What both ends of tunnels said last, kept in memory: it is worth nothing after a restart."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from urllib.parse import quote

from epic.heartbeats import Heartbeats
from epic.model.resources import Tunnel
from epic.rotation import NOTHING, Holds

FRESH_SECONDS = 30.0
"""An end that was not heard of for so long says nothing of the present."""
_FORGET_SECONDS = 3600.0
_MOST_LISTED = 20_000


@dataclass(frozen=True)
class RoundTrip:
    """Seconds from a hello to its answer, over the last hellos."""

    last: float
    min: float
    avg: float


@dataclass(frozen=True)
class End:
    """One end of a tunnel, as it says itself."""

    holds: Holds = NOTHING
    rx_packets: int = 0
    rx_bytes: int = 0
    tx_packets: int = 0
    tx_bytes: int = 0
    hello_age: float | None = None
    """Seconds since the last verified control packet; None: there was none."""
    observed: tuple[str, int] | None = None
    """Where the other end's packets come from (EPIC end)."""
    round_trip: RoundTrip | None = None
    """(workload end)"""
    loss: float | None = None
    """Part of the last hellos without an answer (workload end)."""


@dataclass(frozen=True)
class SecondChance:
    """What became of a gateway's packets that an EPIC node got; see the programs' counters."""

    hits: int = 0
    passed_on: int = 0
    learned: int = 0
    chain_ends: int = 0
    over_budget: int = 0


@dataclass(frozen=True, order=True)
class Place:
    """A node: an EPIC node's `account` and `cluster` are empty."""

    account: str
    cluster: str
    node: str

    @property
    def id(self) -> str:
        """It in one word, which no other place has: what a workload node calls itself."""
        return "/".join(quote(part, safe="") for part in (self.account, self.cluster, self.node))


@dataclass(frozen=True)
class NodeReport:
    """All that a node said at once; `heard` is monotonic."""

    ends: Mapping[int, End]
    drops: Mapping[str, int]
    heard: float
    signing_since: Mapping[int, float]
    """For each tunnel, since when the node signs with the key that it says (monotonic)."""
    second_chances: Mapping[str, SecondChance] = field(default_factory=dict)
    """By gateway id (EPIC nodes)."""
    applied: int | None = None
    """The revision of the newest list of tunnels that it has carried out (workload nodes)."""


@dataclass(frozen=True)
class Heard:
    """What an end said, and how long ago in seconds."""

    end: End
    age: float
    signing_for: float = 0.0
    """Seconds since it said first that it signs with its key."""

    @property
    def fresh(self) -> bool:
        """Whether it still says something of the present."""
        return self.age <= FRESH_SECONDS


def epic_place(tunnel: Tunnel) -> Place:
    """Where the tunnel's EPIC end is."""
    return Place("", "", tunnel.spec.epic_node)


def workload_place(tunnel: Tunnel) -> Place:
    """Where its other end is."""
    return Place(tunnel.account, tunnel.spec.cluster_id, tunnel.spec.node_name)


class Live:
    """The last report of each node. Methods may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most_listed: int = _MOST_LISTED) -> None:
        self.heartbeats = Heartbeats(clock)
        self._clock = clock
        self._most_listed = most_listed
        self._listed: dict[str, set[Place] | None] = {}
        self._newest_unknown: int | None = None
        self._lock = threading.Lock()
        self._nodes: dict[Place, NodeReport] = {}
        self._began = clock()

    def take(
        self,
        place: Place,
        ends: Mapping[int, End],
        drops: Mapping[str, int],
        applied: int | None = None,
        second_chances: Mapping[str, SecondChance] | None = None,
    ) -> None:
        """A node has reported."""
        now = self._clock()
        with self._lock:
            before = self._nodes.get(place)
            since = {id_: _signing_since(id_, end, before, now) for id_, end in ends.items()}
            chances = dict(second_chances or {})
            self._nodes[place] = NodeReport(dict(ends), dict(drops), now, since, chances, applied)
            for old in [p for p, r in self._nodes.items() if now - r.heard > _FORGET_SECONDS]:
                del self._nodes[old]

    def applied(self, place: Place) -> tuple[int | None, float]:
        """Which list of tunnels a node has carried out, and for how many seconds it has been silent."""
        with self._lock:
            report = self._nodes.get(place)
        now = self._clock()
        return (None, now - self._began) if report is None else (report.applied, now - report.heard)

    def is_listed(self, place: Place) -> bool:
        """Whether it is noted that a workload node may be told of tunnels."""
        with self._lock:
            listed = self._listed.get(place.account, set())
            return listed is None or place in listed

    def note_listing(self, place: Place) -> None:
        """A workload node may be told of tunnels: to be noted before what it is told is read.

        When those of an account are too many to remember, every node of it may.
        """
        with self._lock:
            listed = self._listed.setdefault(place.account, set())
            if listed is not None:
                listed.add(place)
                if len(listed) > self._most_listed:
                    self._listed[place.account] = None

    def remember_listings(self, newest: int) -> None:
        """Who was told of tunnels that were made after `newest` is known; who was of others is not.

        What was said first holds.
        """
        with self._lock:
            if self._newest_unknown is None:
                self._newest_unknown = newest

    def may_have(self, place: Place, tunnel: int) -> bool:
        """Whether a workload node may have been told of this tunnel of its own."""
        with self._lock:
            known = self._newest_unknown is not None and tunnel > self._newest_unknown
        return not known or self.is_listed(place)

    def end(self, place: Place, tunnel: int) -> Heard | None:
        """What a node said of its end of a tunnel."""
        with self._lock:
            report = self._nodes.get(place)
        if report is None or tunnel not in report.ends:
            return None
        now = self._clock()
        return Heard(report.ends[tunnel], now - report.heard, now - report.signing_since[tunnel])

    def ends(self, tunnel: Tunnel) -> tuple[Heard | None, Heard | None]:
        """The EPIC end and the workload end of a tunnel."""
        number = int(tunnel.name)
        return self.end(epic_place(tunnel), number), self.end(workload_place(tunnel), number)

    def second_chances(self) -> list[tuple[str, str, SecondChance, float]]:
        """Gateway id, EPIC node, what it said, and how long ago, in this order."""
        now = self._clock()
        with self._lock:
            reports = {place.node: report for place, report in self._nodes.items() if not place.account}
        return sorted(
            (
                (gateway, node, chance, now - report.heard)
                for node, report in reports.items()
                for gateway, chance in report.second_chances.items()
            ),
            key=lambda row: row[:2],
        )

    def drops(self, places: Collection[Place]) -> dict[Place, tuple[dict[str, int], float]]:
        """Drops by reason, and how long ago they were told, of those of the places that have reported."""
        now = self._clock()
        with self._lock:
            found = {place: self._nodes[place] for place in sorted(places) if place in self._nodes}
        return {place: (dict(report.drops), now - report.heard) for place, report in found.items()}


def holds(heard: Heard | None) -> Holds:
    """The keys that an end has for sure."""
    if heard is None or not heard.fresh:
        return NOTHING
    return replace(heard.end.holds, signing_for=timedelta(seconds=heard.signing_for))


def _signing_since(id_: int, end: End, before: NodeReport | None, now: float) -> float:
    if before is None or id_ not in before.ends or before.ends[id_].holds.signing != end.holds.signing:
        return now
    return before.signing_since[id_]
