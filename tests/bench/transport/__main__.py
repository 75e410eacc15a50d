# SPDX-License-Identifier: Apache-2.0
"""The tunnel's figures against plain routing and the kernel's VXLAN: `python tests/bench/transport` (root).

Networks of namespaces for each of them stand side by side and are measured in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests/bpf")]

import costs  # noqa: E402
import measuring  # noqa: E402
import rebinding  # noqa: E402
import report  # noqa: E402
from load import Load, compile_load  # noqa: E402
from namespaces import Namespace  # noqa: E402
from networks import GueNetwork, Network, PodsNetwork, VxlanNetwork, XdpNetwork  # noqa: E402

OBJECT = ROOT / "src/epic/bpf/gue.bpf.o"
DOCUMENT = ROOT / "docs/benchmarks-transport.md"
MARK = "<!-- figures: written by `make bench-transport` with --write -->"


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    rounds: int
    seconds: float
    pings: int
    rebinds: int


FULL = Extent(rounds=5, seconds=0.6, pings=15_000, rebinds=10)
QUICK = Extent(rounds=1, seconds=0.4, pings=5_000, rebinds=3)


def main() -> None:
    """Measure, print, and write when asked to."""
    options = _options()
    if os.geteuid():
        sys.exit("network namespaces and bpf need root")
    if not OBJECT.exists():
        sys.exit(f"{OBJECT.relative_to(ROOT)} is missing: `make bpf` compiles it")
    chosen = QUICK if options.quick else FULL
    extent = Extent(options.rounds or chosen.rounds, chosen.seconds, chosen.pings, chosen.rebinds)
    with tempfile.TemporaryDirectory() as made, _bpf_file_system(Path(made)) as pins:
        lines = _measure(extent, Path(made), pins)
    print("\n".join(lines))
    if options.write:
        before, mark, _ = DOCUMENT.read_text(encoding="utf-8").partition(MARK)
        if not mark:
            sys.exit(f"{DOCUMENT.name} has no line {MARK}")
        DOCUMENT.write_text(before + MARK + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: does it all work?")
    parser.add_argument("--rounds", type=int, help="rounds instead of the usual number")
    parser.add_argument("--write", action="store_true", help=f"write the figures to docs/{DOCUMENT.name}")
    return parser.parse_args()


def _measure(extent: Extent, scratch: Path, pins: Path) -> list[str]:
    begun = time.monotonic()
    load = Load(compile_load(scratch), extent.seconds, extent.pings)
    with _networks(pins) as networks:
        tunnels = {item.name: item for item in networks if isinstance(item, GueNetwork)}
        spent = costs.measure(load, networks[0], tunnels, scratch)
        results, noise = measuring.measure(load, networks, extent.rounds, _say)
        dropped = _drops(tunnels.values())
    names = [network.name for network in networks]
    rebinds = rebinding.measure(pins, OBJECT, extent.rebinds)
    lines = report.table(results, names)
    lines += ["", *report.others(spent, rebinds, _program(pins))]
    lines += [
        "",
        f"{extent.rounds} rounds of {extent.seconds:g} s a cell in {time.monotonic() - begun:.0f} s on",
    ]
    lines[-1] += (
        f" Linux {os.uname().release.split('-')[0]}, {os.cpu_count()} processors. {report.noise(noise)}"
    )
    lines[-1] += f" Packets the tunnel dropped: {dropped or 'none'}."
    return lines


@contextmanager
def _networks(pins: Path) -> Iterator[list[Network]]:
    made: list[Network] = []
    try:
        made += [Network(), VxlanNetwork()]
        made += [kind(pins, OBJECT) for kind in (GueNetwork, PodsNetwork, XdpNetwork)]
        yield made
    finally:
        for network in made:
            network.close()


@contextmanager
def _bpf_file_system(directory: Path) -> Iterator[Path]:
    pins = directory / "bpf"
    pins.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", str(pins)], check=True)
    try:
        yield pins
    finally:
        subprocess.run(["umount", "-l", str(pins)], check=True)


def _drops(tunnels: Iterable[GueNetwork]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for tunnel in tunnels:
        total.update(tunnel.gateway.drop_counters())
        total.update(tunnel.node.drop_counters())
    return {name: count for name, count in total.items() if count}


def _program(pins: Path) -> dict[str, float]:
    """A full node, programmed by a process of its own."""
    namespace = Namespace()
    arguments = [str(pins / "full"), str(OBJECT), str(report.TUNNELS), str(report.ENDPOINTS)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    with namespace:
        done = subprocess.run(
            [sys.executable, str(HERE / "programming.py"), *arguments],
            stdout=subprocess.PIPE,
            env=environment,
            check=True,
        )
    namespace.close()
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
