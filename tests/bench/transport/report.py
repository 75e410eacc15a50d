# SPDX-License-Identifier: Apache-2.0
"""Pure: the figures and goals as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from measuring import Noise, Results

REFERENCES = ("routed", "vxlan")
SUBJECT, WIRE_SUBJECT = "gue-pods", "gue-xdp"
"""Which of our ways the goals are judged by."""

TUNNELS, ENDPOINTS = 10_000, 100_000
COSTS = {"encap": 150.0, "decap": 170.0}
HELLO_SECONDS = 10.0


@dataclass(frozen=True)
class Goal:
    """What a ratio of ours to another network's value should be, at least or at most."""

    reference: str
    limit: float
    at_most: bool = False
    stretch: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    key: str
    title: str
    goals: tuple[Goal, ...] = ()
    subject: str = SUBJECT


ROWS = (
    Row("udp.kpps", "UDP 64 B received, 1000 packets/s", (Goal("routed", 1.0), Goal("vxlan", 1.45))),
    Row("udp.loss", "… lost, %"),
    Row(
        "rtt.p50", "round trip on one core, p50, µs", (Goal("routed", 1.03, True), Goal("vxlan", 0.76, True))
    ),
    Row("rtt.p99", "… p99, µs", (Goal("routed", 1.1, True),)),
    Row("tcp1.gbits", "TCP, offloads on, 1 stream, Gbit/s", (Goal("routed", 0.97), Goal("vxlan", 1.1))),
    Row("tcp4.gbits", "… 4 streams", (Goal("routed", 0.97), Goal("vxlan", 1.1))),
    Row("plain1.gbits", "TCP, no offloads, 1 stream, Gbit/s", (Goal("routed", 0.9), Goal("vxlan", 1.5))),
    Row(
        "wire1.gbits",
        "TCP, wire-like, 1 stream, Gbit/s",
        (Goal("vxlan", 1.0, stretch=True),),
        WIRE_SUBJECT,
    ),
    Row("wire4.gbits", "… 4 streams", (Goal("vxlan", 1.0),), WIRE_SUBJECT),
    Row("connections.rate", "connections/s", (Goal("routed", 1.0),)),
)


def table(results: Results, names: Sequence[str]) -> list[str]:
    """Medians with their range, ratios of each round's pair (median), and what the goals say."""
    head = ["measure", *names, "ours", "ours : routed", "ours : vxlan", "goal"]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in ROWS:
        cells = [_spread(results[row.key, name]) for name in names]
        ratios = {name: ratio(results, row.key, name, row.subject) for name in REFERENCES}
        shown = ["-" if value is None else f"{value:.2f}" for value in ratios.values()]
        lines.append(_line([row.title, *cells, row.subject, *shown, _verdicts(row, ratios, results)]))
    return lines


def ratio(results: Results, key: str, reference: str, subject: str) -> float | None:
    """Median over the rounds of the subject's value by the reference's; None where that is zero."""
    pairs = zip(results[key, subject], results[key, reference], strict=True)
    found = [ours / theirs for ours, theirs in pairs if theirs]
    return median(found) if found and key != "udp.loss" else None


def verdict(value: float, limit: float, at_most: bool, stretch: bool = False) -> str:
    """Met, or missed by how much of the limit."""
    sign, kind = "≤" if at_most else "≥", "stretch goal " if stretch else ""
    missed = value - limit if at_most else limit - value
    # Two digits are printed; what rounds to the limit meets it.
    outcome = "met" if missed < limit * 0.005 else f"**missed by {missed / limit * 100:.0f} %**"
    return f"{kind}{sign} {limit:g}: {outcome}"


def _verdicts(row: Row, ratios: dict[str, float | None], results: Results) -> str:
    if row.key == "udp.loss":
        lost = median(results[row.key, row.subject])
        return "0: met" if lost < 0.005 else f"0: **missed, {lost:.2f} %**"
    texts = []
    for goal in row.goals:
        value = ratios[goal.reference]
        if value is not None:
            judged = verdict(value, goal.limit, goal.at_most, goal.stretch)
            texts.append(f"{goal.reference} {judged}")
    return "; ".join(texts)


def _spread(values: Sequence[float]) -> str:
    return f"{_number(median(values))} [{_number(min(values))}..{_number(max(values))}]"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def others(spent: Mapping[str, float], rebinds: Sequence[float], full: Mapping[str, float]) -> list[str]:
    """The figures that have no network to compare with."""
    rows = [["measure", "figure", "goal"], ["---"] * 3]
    for title, value in spent.items():
        if title == "empty":
            rows.append(["BPF time of an empty program, taken off below", f"{value:.0f} ns", ""])
            continue
        limit = COSTS[title.split(",")[0]]
        rows.append([f"BPF time a full packet, {title}", f"{value:.0f} ns", verdict(value, limit, True)])
    worst = max(rebinds)
    rows.append(
        [
            f"NAT rebind: hello → usable, of {len(rebinds)}",
            f"{median(rebinds):.2f} ms [{min(rebinds):.2f}..{worst:.2f}]",
            verdict(worst / 1000, HELLO_SECONDS, True) + " (s)",
        ]
    )
    size = f"{TUNNELS:,} tunnels and {ENDPOINTS:,} endpoints"
    rows.append([f"{size} programmed", f"{full['seconds']:.2f} s", verdict(full["seconds"], 5, True)])
    memory = f"{full['rss']:.0f} MB ({full['before']:.0f} MB before)"
    rows.append(["… memory of the process that does it", memory, verdict(full["rss"], 150, True)])
    rows.append(
        ["one endpoint moved, slowest of 100", f"{full['change']:.3f} ms", verdict(full["change"], 1, True)]
    )
    return [_line(row) for row in rows]


def noise(seen: Noise) -> str:
    """What others did meanwhile."""
    return (
        f"{seen.repeated} of {seen.cells} cells were measured twice because others used more than a tenth "
        f"of a processor; {seen.still_busy} of them met others the second time too."
    )
