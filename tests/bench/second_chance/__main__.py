# SPDX-License-Identifier: Apache-2.0
"""The figures of second chance, as ratios in one run: `python tests/bench/second_chance` (root).

Four EPIC nodes in network namespaces; see tests/bpf/second_chance/bed.py, also for what that hides.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
TESTS = ROOT / "tests"
sys.path[:0] = [str(each) for each in (ROOT / "src", TESTS / "bpf", TESTS / "bpf/second_chance")]
# Behind our own modules, some of which have the same names.
sys.path.append(str(TESTS / "bench/transport"))

import flooding  # noqa: E402
import measuring  # noqa: E402
from bed import Bed  # noqa: E402
from frames import GENERATION  # noqa: E402
from load import compile_load  # noqa: E402
from measuring import Extent, Ways  # noqa: E402
from report import Figures, table  # noqa: E402
from serving import ENVOY, Serving  # noqa: E402
from steering import Steering  # noqa: E402

from epic.bpf.tables import tunnel_table  # noqa: E402

OBJECT = ROOT / "src/epic/bpf/gue.bpf.o"
FULL = Extent(rounds=7, seconds=1.0, pings=20_000, flood=100_000)
QUICK = Extent(rounds=1, seconds=0.4, pings=5_000, flood=20_000)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: does it all work?")
    options = parser.parse_args()
    if os.geteuid():
        sys.exit("network namespaces and bpf need root")
    if not (OBJECT.exists() and ENVOY.exists()):
        sys.exit("the tunnel programs or Envoy are missing: `make bpf` compiles, `make setup` installs them")
    # Hellos of the bed's workload node are made before it could ask for the tunnels' generations.
    tunnel_table._new_generation = lambda: GENERATION
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as made, _bpf_file_system(Path(made)) as pins:
        figures = _measure(QUICK if options.quick else FULL, Path(made), pins)
    print("\n".join(table(figures)))
    taken, release = time.monotonic() - begun, os.uname().release.split("-")[0]
    print(f"\n{taken:.0f} s on Linux {release}, {os.cpu_count()} processors.")


def _measure(extent: Extent, scratch: Path, pins: Path) -> Figures:
    bed = Bed(pins / "bed", OBJECT)
    try:
        steering = Steering(bed)
        costs = measuring.cost_of_hits(bed, steering)
        ways = Ways(bed, steering, compile_load(scratch))
        streams = measuring.throughput(ways, extent, _say)
        trips = measuring.latency(ways, extent, _say)
        bed.unlink()
        steering.clear()
        with Serving(bed, scratch / "serving"):
            flooded = flooding.measure(bed, _compile_strays(scratch), extent.flood)
    finally:
        bed.close()
    return Figures(costs, streams, trips, flooded)


def _compile_strays(directory: Path) -> Path:
    program = directory / "strays"
    subprocess.run(["cc", "-O2", "-o", str(program), str(HERE / "strays.c")], check=True)
    return program


@contextmanager
def _bpf_file_system(directory: Path) -> Iterator[Path]:
    pins = directory / "bpf"
    pins.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", str(pins)], check=True)
    try:
        yield pins
    finally:
        subprocess.run(["umount", "-l", str(pins)], check=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
