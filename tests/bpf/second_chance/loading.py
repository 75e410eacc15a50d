# SPDX-License-Identifier: Apache-2.0
"""The load on the bed's gateway, in a process of its own, and what it saw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any

from namespaces import Namespace
from slow import explain

HERE = Path(__file__).parent
_SILENT = "silent "


def _unheard(_: str) -> None:
    pass


def _unknown(_begun: float, _ended: float) -> float:
    return 0.0


@dataclass(frozen=True)
class Seen:
    """What the load counted in one phase."""

    requests: int
    slow: int
    """Requests that took over 250 ms."""
    causes: dict[str, int]
    """What held them up."""
    starved: int
    """The same, if it was what serves that did not get to run meanwhile."""
    held: int
    """The same, if it was the load that did not."""
    short: int
    worst: float
    median: float
    broken: list[dict[str, Any]]

    @property
    def text(self) -> str:
        """One line, and some of the broken connections."""
        why: dict[str, int] = {}
        for each in self.broken:
            name = f"{each['kind']}: {each['why'][:60]}"
            why[name] = why.get(name, 0) + 1
        return (
            f"{self.requests} requests ({self.short} on connections of their own), "
            f"{len(self.broken)} broken, {self.slow} over 250 ms, median {self.median} ms, "
            f"worst {self.worst} ms ({self.starved} over 250 ms because what serves did not run, "
            f"{self.held} because the load itself did not) {self.causes or ''} {why or ''}"
        )


class Load:
    """`with Load(bed.client, PUBLIC, 400, 0.4, 20) as load:` connections stand in it.

    `hear` is told of each that is silent for a second while it is: "PORT KIND ...", in a thread of its own.
    `waited` says for how many seconds of a time what serves was ready to run and did not.
    """

    def __init__(
        self,
        namespace: Namespace,
        address: object,
        connections: int,
        interval: float,
        short: float,
        hear: Callable[[str], None] = _unheard,
        waited: Callable[[float, float], float] = _unknown,
    ) -> None:
        self._hear, self._waited = hear, waited
        arguments = [str(address), str(connections), str(interval), str(short)]
        self._command = [sys.executable, "-S", str(HERE / "client_load"), *arguments]
        self._namespace = namespace
        self._found: dict[str, Any] = {}

    def __enter__(self) -> Load:
        with self._namespace:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        # Reading from a pipe in another thread is all that `communicate` would do with it.
        self._errors, self._process.stderr = self._process.stderr, None
        self._listening = Thread(target=self._listen, daemon=True)
        self._listening.start()
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        os.setpriority(os.PRIO_PROCESS, self._process.pid, -5)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.end()

    def _listen(self) -> None:
        assert self._errors is not None
        for line in self._errors:
            if line.startswith(_SILENT):
                self._hear(line.removeprefix(_SILENT).strip())
            else:
                sys.stderr.write(line)

    def phase(self, name: str) -> None:
        """From now on count by this name."""
        self._say(name)

    def renew(self) -> None:
        """Each connection ends between two requests, and is opened again: soon, not all at once."""
        self._say("renew")

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == line + "\n"

    def end(self) -> None:
        """Afterwards there is what it saw."""
        out, _ = self._process.communicate(timeout=30)
        self._listening.join()
        self._found = json.loads(out)

    def seen(self, phase: str) -> Seen:
        """What happened in it."""
        broken = [each for each in self._found["broken"] if each["phase"] == phase]
        empty = {"requests": 0, "slow": 0, "held": 0, "short": 0, "told": [], "worst": 0.0, "median": 0.0}
        found = {**self._found["phases"].get(phase, empty)}
        told = found.pop("told")
        slow, causes = explain(told, self._waited)
        starved = len(told) - len(slow)
        found["slow"] -= starved
        return Seen(**found, starved=starved, causes=dict(causes), broken=broken)
