# SPDX-License-Identifier: Apache-2.0
"""Connections through real Envoys while a node joins, during a flood of stray packets."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from bed import PUBLIC, Bed
from loading import Load, Seen
from serving import PUBLIC_HTTP

CONNECTIONS, INTERVAL = 200, 0.4
SECONDS = 8.0
_SETTLED = 2.0
_STRANGERS = "10.10.128.0/17"


@dataclass(frozen=True)
class Flooded:
    """What a flood did."""

    sent: float
    """Stray packets a second."""
    counted: dict[str, float]
    """Second chance's counters of all nodes, a second."""
    lost: float
    """Packets of whomever a second that came faster than the processors took them in."""
    joining: Seen
    moved_again: Seen


def measure(bed: Bed, program: Path, rate: int) -> Flooded:
    """Flows that moved before the flood move back and forth in it; and a node joins that knows none.

    The third node's flows are learned by the first two; the fourth is new.
    """
    bed.edge.run(f"ip route replace blackhole {_STRANGERS}")
    bed.router.run(f"ip route replace {_STRANGERS} via 10.11.0.2")
    bed.link([0, 1, 2])
    bed.route([0, 1])
    with Load(bed.client, PUBLIC, CONNECTIONS, INTERVAL, 0) as load:
        load.phase("learn")
        for hops in ([1], [0], [0, 1]):
            bed.route(hops)
            time.sleep(_SETTLED)
        with bed.client:
            arguments = [program, str(PUBLIC), str(PUBLIC_HTTP), str(rate), str(SECONDS)]
            flood = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        time.sleep(0.5)
        before, lost = _counted(bed), _lost()
        load.phase("moved again")
        for hops in ([0], [1], [0, 1]):
            bed.route(hops)
            time.sleep(1)
        load.phase("joining")
        bed.link([0, 1, 2, 3])
        bed.route([0, 1, 3])
        out, _ = flood.communicate()
        after, lost = _counted(bed), _lost() - lost
        time.sleep(_SETTLED)
        load.end()
    said = json.loads(out)
    counted = {name: (after[name] - before[name]) / SECONDS for name in after if after[name] != before[name]}
    return Flooded(
        sent=said["packets"] / said["seconds"],
        counted=counted,
        lost=lost / SECONDS,
        joining=load.seen("joining"),
        moved_again=load.seen("moved again"),
    )


def _lost() -> int:
    """Dropped by the kernel because a processor's queue of received packets was full."""
    lines = Path("/proc/net/softnet_stat").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1], 16) for line in lines)


def _counted(bed: Bed) -> Counter[str]:
    total: Counter[str] = Counter()
    for node in bed.nodes:
        for counters in dict(node.plane.second_chance_counters()).values():
            total.update(asdict(counters))
    return total
