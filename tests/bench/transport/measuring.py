# SPDX-License-Identifier: Apache-2.0
"""The rounds: each measure on each network, one after the other, in another order each time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from load import Load
from networks import DEFAULT, NONE, WIRE, Network, Offloads

Values = dict[str, float]
Results = dict[tuple[str, str], list[float]]
"""(measure, network) -> one value a round."""

_BUSY = 0.1
_PROBE_SECONDS = 0.2


@dataclass(frozen=True)
class Measure:
    """One load; its values are called NAME.KEY."""

    name: str
    run: Callable[[Load, Network], Values]


SCENARIOS: tuple[tuple[Offloads, tuple[Measure, ...]], ...] = (
    (
        DEFAULT,
        (
            Measure("udp", Load.datagrams),
            Measure("rtt", Load.round_trips),
            Measure("tcp1", lambda load, network: load.streams(network, 1)),
            Measure("tcp4", lambda load, network: load.streams(network, 4)),
            Measure("connections", Load.connections),
        ),
    ),
    (NONE, (Measure("plain1", lambda load, network: load.streams(network, 1)),)),
    (
        WIRE,
        (
            Measure("wire1", lambda load, network: load.streams(network, 1)),
            Measure("wire4", lambda load, network: load.streams(network, 4)),
        ),
    ),
)


@dataclass
class Noise:
    """How often others used the processors."""

    cells: int = 0
    repeated: int = 0
    still_busy: int = 0


def measure(
    load: Load, networks: Sequence[Network], rounds: int, say: Callable[[str], None]
) -> tuple[Results, Noise]:
    """All scenarios; the values by round."""
    results: Results = {}
    noise = Noise()
    for features, measures in SCENARIOS:
        for network in networks:
            network.offload(features)
        for number in range(rounds):
            order = [*networks[number % len(networks) :], *networks[: number % len(networks)]]
            for taken in measures:
                for network in order:
                    for key, value in _cell(load, taken, network, noise).items():
                        results.setdefault((f"{taken.name}.{key}", network.name), []).append(value)
            say(f"{', '.join(taken.name for taken in measures)}: round {number + 1} of {rounds}")
    return results, noise


def _cell(load: Load, taken: Measure, network: Network, noise: Noise) -> Values:
    """One value; measured once more when others used the processors, and then the second one counts."""
    noise.cells += 1
    values = taken.run(load, network)
    if _taken_by_others() <= _BUSY:
        return values
    noise.repeated += 1
    values = taken.run(load, network)
    noise.still_busy += _taken_by_others() > _BUSY
    return values


def _taken_by_others() -> float:
    """Processors in use while we do nothing."""
    before, begun = _idle(), time.monotonic()
    time.sleep(_PROBE_SECONDS)
    after, cpus = _idle(), _processors()
    return max(0.0, cpus - (after - before) / (time.monotonic() - begun))


def _idle() -> float:
    """Seconds that the processors had nothing to do, in sum."""
    return float(Path("/proc/uptime").read_text(encoding="ascii").split()[1])


def _processors() -> int:
    return sum(line.startswith("processor") for line in Path("/proc/cpuinfo").read_text("ascii").splitlines())
