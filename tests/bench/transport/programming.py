# SPDX-License-Identifier: Apache-2.0
"""A process of its own that programs a full node: prints the time and the memory it took as JSON.

`programming.py PIN_DIRECTORY OBJECT_FILE TUNNELS ENDPOINTS`, in a network namespace with an interface `lo`.
"""

from __future__ import annotations

import json
import sys
import time
from ipaddress import IPv4Address
from pathlib import Path

from epic.bpf.dataplane import Dataplane, Endpoint, Pair, Tunnel

_INSIDES = int(IPv4Address("100.64.0.0"))
_ENDPOINTS = int(IPv4Address("10.0.0.0"))
_LOCAL = IPv4Address("172.30.2.1")


def main() -> None:
    """Program, change one endpoint a few times, remove all."""
    pins, object_file, tunnels, endpoints = sys.argv[1:]
    dataplane = Dataplane(Path(pins), Path(object_file))
    dataplane.load()
    try:
        before, begun = _resident(), time.perf_counter()
        _program(dataplane, int(tunnels), int(endpoints))
        seconds = time.perf_counter() - begun
        after = _resident()
        print(json.dumps({"seconds": seconds, "before": before, "rss": after, "change": _change(dataplane)}))
    finally:
        dataplane.unload()


def _program(dataplane: Dataplane, tunnels: int, endpoints: int) -> None:
    for number in range(tunnels):
        dataplane.set_tunnel(_tunnel(number + 1))
    wanted: dict[Pair, Endpoint] = {}
    for number in range(endpoints):
        tunnel = number % tunnels + 1
        wanted[IPv4Address(_INSIDES + tunnel), IPv4Address(_ENDPOINTS + number)] = Endpoint(tunnel)
    dataplane.set_endpoints(wanted)


def _tunnel(id: int) -> Tunnel:
    return Tunnel(
        id=id,
        service=id,
        inside=IPv4Address(_INSIDES + id),
        inside6=None,
        local=_LOCAL,
        remote=None,
        remote_port=6080,
        underlay="lo",
        interface=None,
        keys=(None, id.to_bytes(16, "big")),
        active=1,
    )


def _change(dataplane: Dataplane) -> float:
    """Milliseconds to move one endpoint, the slowest of many."""
    inside, endpoint, slowest = IPv4Address(_INSIDES + 1), IPv4Address(_ENDPOINTS), 0.0
    for _ in range(100):
        begun = time.perf_counter()
        dataplane.delete_endpoint(inside, endpoint)
        dataplane.set_endpoint(inside, endpoint, Endpoint(1))
        slowest = max(slowest, time.perf_counter() - begun)
    return slowest * 1000


def _resident() -> float:
    """MB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
