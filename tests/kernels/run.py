# SPDX-License-Identifier: Apache-2.0
"""The tunnel programs on other kernels: `python tests/kernels/run.py` (root) runs tests/bpf on each.

The kernels are Debian's; the machine has this one's files, so also its Python, bpftool and iproute2.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from machine import Machine  # noqa: E402
from packages import SOURCES, Kernel, kernel  # noqa: E402

OBJECT = ROOT / "src/epic/bpf/gue.bpf.o"
CACHE = ROOT / ".cache/kernels"
PROGRAMS = ("qemu-system-x86_64", "busybox", "modprobe", "depmod")
PATH = ":".join(
    [str(Path(sys.executable).parent), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
)
PYTEST = (
    sys.executable,
    "-m",
    "pytest",
    "-v",
    "-p",
    "no:cacheprovider",
    "--tb=short",
    "--timeout=300",
    "-rfEs",
)
SELECTED = ("chance", "kernels", "layout", "mapped", "outer", "receive", "take_out")
"""The verifier's judgement of every program, and what receives packets, which differs between kernels."""

CLOCK_CALL, OLD_CLOCK_CALL = (bytes([0x85, 0, 0, 0, helper, 0, 0, 0]) for helper in (160, 5))
"""Calls of bpf_ktime_get_coarse_ns (Linux 5.11) and bpf_ktime_get_ns."""
STAND_IN = "5.10"
"""For 5.15, which Debian has not. It lacks that clock only, so the finer one is put in its place."""


def main() -> None:
    """Boot the kernels one after the other; exit 1 if anything failed on any."""
    options = _options()
    if os.geteuid():
        sys.exit("loading bpf programs needs root")
    if not OBJECT.exists():
        sys.exit(f"{OBJECT.relative_to(ROOT)} is missing: `make bpf` compiles it")
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        sys.exit(f"{', '.join(missing)} not found (Debian: qemu-system-x86, busybox-static, kmod)")
    good = [_try(kernel(series, CACHE), series, options) for series in options.series or SOURCES]
    sys.exit(not all(good))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "series", nargs="*", choices=[[], *SOURCES], metavar="SERIES", help=", ".join(SOURCES)
    )
    parser.add_argument("--all", action="store_true", help="all of tests/bpf, with a million packets fuzzed")
    parser.add_argument("--minutes", type=float, default=30, help="how long a machine may take")
    parser.add_argument("-k", dest="expression", help="run the tests that match, as pytest's -k")
    return parser.parse_args()


def _try(kernel: Kernel, series: str, options: argparse.Namespace) -> bool:
    results = CACHE / f"results-{series}"
    command = [*PYTEST, *_tests(options)]
    machine = Machine(kernel, results)
    if series == STAND_IN:
        machine.give("object", OBJECT.read_bytes().replace(CLOCK_CALL, OLD_CLOCK_CALL), at=OBJECT)
    begun = time.monotonic()
    status = machine.run(command, ROOT, PATH, options.minutes * 60)
    took = time.monotonic() - begun
    output = results / "output"
    said = output.read_text("utf-8", "replace").splitlines() if output.exists() else []
    outcome = "did not finish" if status is None else (said or ["no output"])[-1].strip("= ")
    print(f"{kernel.release} ({kernel.package}): {outcome}, {took:.0f} s with the boot", flush=True)
    if status:
        print("\n".join(f"  {line}" for line in said if line.startswith(("FAILED", "ERROR"))))
    if status != 0:
        print(f"  see {results.relative_to(ROOT)}: output, console")
    return status == 0


def _tests(options: argparse.Namespace) -> list[str]:
    chosen = ["tests/bpf"] if options.all else [f"tests/bpf/test_{name}.py" for name in SELECTED]
    return chosen + (["-k", options.expression] if options.expression else [])


if __name__ == "__main__":
    main()
