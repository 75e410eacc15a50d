# SPDX-License-Identifier: Apache-2.0
"""What the programs cost: the kernel's statistics of them, less what it shows for an empty program."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from load import SOURCES, Load
from networks import NONE, GueNetwork, Network

_SWITCH = Path("/proc/sys/kernel/bpf_stats_enabled")
_EMPTY = "empty"


class Cost(NamedTuple):
    """A program of one of the networks, by the network's name."""

    network: str
    end: str
    program: str
    title: str
    replies: bool
    """The load is from the pod."""


PROGRAMS = (
    Cost("gue", "epic", "instance_ingress", "encap, EPIC node", False),
    Cost("gue", "node", "workload_underlay_ingress", "decap, workload node", False),
    Cost("gue", "node", "workload_underlay_egress", "encap, workload node", True),
    Cost("gue", "epic", "gateway_underlay_ingress", "decap, EPIC node", True),
    Cost("gue-pods", "node", "workload_underlay_ingress", "decap, workload node, into the pod", False),
    Cost("gue-pods", "node", "pod_ingress", "encap, at the pod", True),
    Cost("gue-xdp", "node", "workload_underlay_xdp", "decap, workload node, XDP", False),
    Cost("gue-xdp", "epic", "gateway_underlay_xdp", "decap, EPIC node, XDP", True),
)


def measure(
    load: Load, plain: Network, tunnels: Mapping[str, GueNetwork], directory: Path
) -> dict[str, float]:
    """Nanoseconds a packet of the underlay's MTU, by what is done; net, and `empty` itself."""
    for network in (plain, *tunnels.values()):
        network.offload(NONE)
    with _statistics(), _empty_program(plain, directory):
        load.streams(plain, 1)
        empty = _mean(_attached(plain), (0, 0))
        costs = {_EMPTY: empty}
        for cost in PROGRAMS:
            tunnel = tunnels[cost.network]
            pin = tunnel.pin(cost.end, cost.program)
            before = _counted(_pinned(pin))
            load.streams(tunnel, 1, reverse=cost.replies)
            costs[cost.title] = _mean(_pinned(pin), before) - empty
    return costs


@contextmanager
def _statistics() -> Iterator[None]:
    before = _SWITCH.read_text(encoding="ascii")
    _SWITCH.write_text("1", encoding="ascii")
    try:
        yield
    finally:
        _SWITCH.write_text(before, encoding="ascii")


@contextmanager
def _empty_program(network: Network, directory: Path) -> Iterator[None]:
    compiled = directory / "empty.bpf.o"
    multiarch = subprocess.run(["clang", "-print-multiarch"], capture_output=True, text=True, check=True)
    include = f"-I/usr/include/{multiarch.stdout.strip()}"
    source = SOURCES / "empty.bpf.c"
    subprocess.run(
        ["clang", "-O2", "-g", "-target", "bpf", include, "-c", str(source), "-o", str(compiled)], check=True
    )
    network.workload.run(
        "tc qdisc add dev up0 clsact", f"tc filter add dev up0 ingress bpf da obj {compiled} sec tc"
    )
    try:
        yield
    finally:
        network.workload.run("tc qdisc del dev up0 clsact")


def _attached(network: Network) -> Any:
    filters = json.loads(network.workload.run("tc -j filter show dev up0 ingress"))
    (number,) = (found["options"]["prog"]["id"] for found in filters if "prog" in found.get("options", {}))
    return _shown(["id", str(number)])


def _pinned(pin: Path) -> Any:
    return _shown(["pinned", str(pin)])


def _shown(which: list[str]) -> Any:
    shown = subprocess.run(
        ["bpftool", "-j", "prog", "show", *which], capture_output=True, text=True, check=True
    )
    return json.loads(shown.stdout)


def _counted(program: Any) -> tuple[int, int]:
    return program.get("run_time_ns", 0), program.get("run_cnt", 0)


def _mean(program: Any, before: tuple[int, int]) -> float:
    time_ns, runs = _counted(program)
    return (time_ns - before[0]) / max(1, runs - before[1])
