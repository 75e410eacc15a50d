# SPDX-License-Identifier: Apache-2.0
"""What a gateway's Envoy resources take: all built, one route changed, and the start of an Envoy to compare.

A gateway of so many routes, each with a hostname and a Service of its own. Processor time, medians; the
ratio is to the Envoy that was started for each change before kinds of pieces were remembered.

`envoy_build.py [ROUTES]`
"""

from __future__ import annotations

import asyncio
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from statistics import median

from epic.envoy.builders.routes import RoutePieces
from epic.envoy.resources import assemble
from epic.envoy.validate import validate
from epic.gatewayapi.routing import Cluster, HTTPRoute, Port, Routing, VirtualHost, WeightedCluster
from epic.model.resources import EnvoyResources
from epic.model.values.naming import GatewayId

ROUTES, SMALL, TURNS = 2500, 10, 9


def routing(count: int, path: str) -> Routing:
    """A gateway of so many routes, of which the first has this path."""
    clusters = [Cluster(f"s{number}", 80) for number in range(count)]
    routes = [
        HTTPRoute(
            f"n/r{n}/rule/0/match/0", "PathPrefix", f"/{n}", (), (WeightedCluster(clusters[n].name, 1),)
        )
        for n in range(count)
    ]
    routes[0] = replace(routes[0], path=path)
    hosts = tuple(VirtualHost(f"h{number}.example.net", (routes[number],)) for number in range(count))
    ports = (Port(80, "HTTP", virtual_hosts=hosts),)
    return Routing(GatewayId("root", "g"), "", (IPv4Address("203.0.113.1"),), ports, tuple(clusters))


def timed(calls: list[Callable[[], object]]) -> float:
    """The median, in milliseconds of processor time."""
    times = []
    for call in calls:
        begun = time.thread_time()
        call()
        times.append((time.thread_time() - begun) * 1000)
    return median(times)


def envoy_start(routing: Routing) -> float:
    """Processor time of an Envoy that judges the gateway, in milliseconds."""
    bundle = assemble(routing, EnvoyResources(), [], RoutePieces())

    def used() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    before = used()
    asyncio.run(validate(Path(shutil.which("envoy") or "envoy"), bundle))
    return (used() - before) * 1000


def main() -> None:
    """Print the figures."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else ROUTES
    turns = [routing(count, f"/changed{turn}") for turn in range(TURNS)]
    pieces, none = RoutePieces(), EnvoyResources()
    anew = timed([lambda r=r: assemble(r, none, [], RoutePieces()) for r in turns])  # type: ignore[misc]
    assemble(turns[-1], none, [], pieces)
    changed = timed([lambda r=r: assemble(r, none, [], pieces) for r in turns])  # type: ignore[misc]
    print(f"{count:,} routes: all built {anew:.1f} ms; one changed {changed:.1f} ms", flush=True)
    small = [routing(SMALL, f"/changed{turn}") for turn in range(TURNS)]
    assemble(small[-1], none, [], pieces)
    changed = timed([lambda r=r: assemble(r, none, [], pieces) for r in small])  # type: ignore[misc]
    print(f"{SMALL} routes: one changed {changed:.2f} ms", flush=True)
    start = envoy_start(small[0])
    print(f"an Envoy that judges these: {start:.0f} ms, {start / changed:.0f} times as long")


if __name__ == "__main__":
    main()
