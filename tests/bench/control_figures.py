# SPDX-License-Identifier: Apache-2.0
"""What epic-control takes as it runs: memory, processor time, its loop's longest pieces; with goals."""

from __future__ import annotations

import json
import os
import signal
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from control_process import ControlProcess

_TICKS = os.sysconf("SC_CLK_TCK")
_IDLE_SHARE, _LOOK_SECONDS, _QUIET_LOOKS = 0.1, 3.0, 3

LOOP_FAULTS = """
import asyncio, gc, json, resource, signal, threading, time
_piece, _main = asyncio.events.Handle._run, threading.main_thread()
_none = dict.fromkeys(("processor", "clock", "system", "garbage", "looks", "longest"), 0.0) | {"what": ""}
_found, _look = dict(_none), {"begun": 0.0, "main": 0.0}
def _system():
    return resource.getrusage(resource.RUSAGE_THREAD).ru_stime
def _timed(self):
    if threading.current_thread() is not _main:
        return _piece(self)
    begun, spent, kernel, looked = time.perf_counter(), time.thread_time(), _system(), _look["main"]
    _piece(self)
    used, took = time.thread_time() - spent, time.perf_counter() - begun
    if used > _found["processor"]:
        task = getattr(self._callback, "__self__", None)
        _found.update(processor=used, what=f"{self!r:.200} {task!r:.400}", system=_system() - kernel)
        _found["garbage"] = _look["main"] - looked
    _found["clock"] = max(took, _found["clock"])
def _looked(phase, info):
    if phase == "start":
        _look["begun"] = time.thread_time()
        return
    used = time.thread_time() - _look["begun"]
    if threading.current_thread() is _main:
        _look["main"] += used
    _found["looks"] += used
    _found["longest"] = max(used, _found["longest"])
def _tell(*_):
    with open(%r, "w") as file:
        json.dump(_found, file)
    _found.update(_none)
asyncio.events.Handle._run = _timed
gc.callbacks.append(_looked)
signal.signal(signal.SIGUSR2, _tell)
"""
"""Run before epic-control begins: how long pieces of work hold the loop that serves ADS and the REST API, and
what looking for garbage takes, which holds up all threads."""


class Figures:
    """What was found, printed as it is found. All are such that less is better but those in `rates`."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}
        self.rates: set[str] = set()

    def note(
        self, name: str, value: float, unit: str, goal: float | None = None, *, rate: bool = False
    ) -> None:
        """Print a figure and its goal."""
        self.found[name] = value
        if rate:
            self.rates.add(name)
        text = ""
        if goal is not None:
            met = value >= goal if rate else value <= goal
            text = f"   goal {goal:g} {unit}: {'met' if met else 'missed'}"
        print(f"{name:72} {value:10.1f} {unit}{text}", flush=True)

    def note_times(
        self, name: str, times: list[float], p50: float | None = None, p99: float | None = None
    ) -> None:
        """Print the quantiles of times in seconds, as milliseconds; goals are milliseconds."""
        ordered = sorted(times)
        self.note(f"{name}, p50", statistics.median(ordered) * 1e3, "ms", p50)
        self.note(f"{name}, p99", ordered[int(len(ordered) * 0.99)] * 1e3, "ms", p99)
        self.note(f"{name}, longest of {len(ordered)}", ordered[-1] * 1e3, "ms")


def memory(control: ControlProcess) -> float:
    """MiB that are resident."""
    status = Path(f"/proc/{control.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def processor_seconds(control: ControlProcess) -> float:
    """That it has used so far, without those of its children."""
    fields = Path(f"/proc/{control.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def wait_until_idle(control: ControlProcess, at_most: float) -> None:
    """Wait until all that is to be built is built: until it has little to do for a while."""
    end, quiet, before = time.monotonic() + at_most, 0, processor_seconds(control)
    while quiet < _QUIET_LOOKS and time.monotonic() < end:
        time.sleep(_LOOK_SECONDS)
        now = processor_seconds(control)
        quiet = quiet + 1 if now - before < _IDLE_SHARE * _LOOK_SECONDS else 0
        before = now


@dataclass(frozen=True)
class LoopPieces:
    """Milliseconds: processor time of the longest piece, that of the kernel and of garbage in it; the longest
    by the clock; processor time of looking for garbage in any thread, and the longest look."""

    processor: float
    system: float
    garbage: float
    clock: float
    looks: float
    longest: float
    what: str
    """The piece that took most processor time."""


def longest_piece(control: ControlProcess, file: Path) -> LoopPieces:
    """Of the loop since the last call."""
    file.unlink(missing_ok=True)
    os.kill(control.pid, signal.SIGUSR2)
    content = ""
    while not content.endswith("}"):
        time.sleep(0.05)
        content = file.read_text() if file.exists() else ""
    found = json.loads(content)
    what = str(found.pop("what"))
    return LoopPieces(what=what, **{name: seconds * 1e3 for name, seconds in found.items()})


def print_ratios(one: Figures, other: Figures) -> None:
    """How many times as long, as much or (of rates) as few the other has."""
    print(f"{'etcd to SQLite (goal: at most 2 times)':72} {'ratio':>10}")
    for name in _common(one, other):
        first, second = one.found[name], other.found[name]
        if first and second:
            print(f"{name:72} {first / second if name in one.rates else second / first:10.2f}")


def _common(one: Figures, other: Figures) -> Iterable[str]:
    return [name for name in one.found if name in other.found]
