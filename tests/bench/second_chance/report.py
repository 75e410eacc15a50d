# SPDX-License-Identifier: Apache-2.0
"""Pure: the figures and goals as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from flooding import CONNECTIONS, Flooded

HIT_NS = 130
THROUGHPUT_HIT = 0.97
PASSED_ON = {"on": 0.9, "off": 0.7}
HOP_US = 10.0
Streams = Mapping[tuple[str, str], Sequence[float]]


@dataclass(frozen=True)
class Figures:
    """All that was measured."""

    costs: Mapping[str, int]
    streams: Streams
    trips: Mapping[str, Sequence[float]]
    flooded: Flooded


def table(figures: Figures) -> list[str]:
    """One line a measure: the figure, the goal, and whether it is met."""
    rows = [["Measure", "Figure", "Goal"], ["---"] * 3]
    rows += [*_costs(figures.costs), *_throughput(figures.streams), *_latency(figures.trips)]
    rows += _flood(figures.flooded)
    return [f"| {' | '.join(row)} |" for row in rows]


def _costs(costs: Mapping[str, int]) -> list[list[str]]:
    title = "A packet whose socket is here, program's time (second chance off)"
    figure = f"{costs['hit']} ns ({costs['off']} ns)"
    return [[title, figure, _verdict(f"≤ {HIT_NS} ns", costs["hit"] <= HIT_NS)]]


def _throughput(streams: Streams) -> list[list[str]]:
    rows = []
    for offloads in ("on", "off"):
        for way, limit in (("hit", THROUGHPUT_HIT), ("passed on", PASSED_ON[offloads])):
            pairs = zip(streams[offloads, way], streams[offloads, "off"], strict=True)
            ratio = median(ours / theirs for ours, theirs in pairs)
            title = f"One TCP stream, offloads {offloads}, all packets {way}, against second chance off"
            shown = f"{ratio:.2f} of {median(streams[offloads, 'off']):.1f} Gbit/s"
            rows.append([title, shown, _verdict(f"≥ {limit}", ratio >= limit - 0.005)])
    return rows


def _latency(trips: Mapping[str, Sequence[float]]) -> list[list[str]]:
    direct, passed = (median(trips[way]) for way in ("hit", "passed on"))
    title = "Round trip, one way of it passed on once, p50, added to that of a direct one"
    shown = f"{passed - direct:.1f} µs (direct {direct:.1f} µs)"
    return [[title, shown, _verdict(f"≤ {HOP_US:g} µs", passed - direct <= HOP_US)]]


def _flood(flooded: Flooded) -> list[list[str]]:
    counted = ", ".join(f"{name} {value:.0f}" for name, value in sorted(flooded.counted.items()))
    moved, joining = flooded.moved_again, flooded.joining
    return [
        [f"Flood of {flooded.sent:.0f} stray ACKs a second: counted a second", counted, ""],
        ["… packets a second lost in full receive queues of the kernel, whosever", f"{flooded.lost:.0f}", ""],
        [
            "… connections of learned flows broken that are moved in it",
            f"{len(moved.broken)} of {CONNECTIONS}; {moved.slow} requests over 250 ms",
            _verdict("0", not moved.broken),
        ],
        [
            "… connections broken by a node that joins in it",
            f"{len(joining.broken)} of {CONNECTIONS}; {joining.slow} requests over 250 ms",
            "",
        ],
    ]


def _verdict(goal: str, is_met: bool) -> str:
    return f"{goal}: {'met' if is_met else '**missed**'}"
