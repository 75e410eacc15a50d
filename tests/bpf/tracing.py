# SPDX-License-Identifier: Apache-2.0
"""epic-trace as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from namespaces import Namespace
from path_network import Network

SOURCES = Path(__file__).parents[2] / "src"


class Tracing:
    """`with Tracing(pins, places, "--port=80") as tool:` runs it; afterwards there is what it said."""

    def __init__(self, pins: Iterable[Path], places: Iterable[Namespace], *arguments: str) -> None:
        ends = [f"--pins={each}" for each in pins]
        ends += [f"--namespace=/proc/{os.getpid()}/fd/{place.fd}" for place in places]
        self._command = [sys.executable, "-m", "epic.trace.main", *ends, *arguments]
        self._environment = {"PYTHONPATH": str(SOURCES), "PATH": os.environ["PATH"]}
        self.out, self.errors = "", ""

    def __enter__(self) -> Tracing:
        self.process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        assert self.process.stderr is not None
        first = self.process.stderr.readline()
        assert "tracing" in first, first + self.process.stderr.read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """As Ctrl-C does it, unless it has ended of itself."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        out, errors = self.process.communicate(timeout=20)
        self.out += out
        self.errors += errors

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What it said with `-o json`."""
        return [json.loads(line) for line in self.out.splitlines()]


def trace(network: Network, pins: Path, *arguments: str, places: Iterable[Namespace] = ()) -> Tracing:
    """Of both ends of a tunnel."""
    ends = [pins / end for end in ("gateway", "workload")]
    return Tracing(ends, places or (network.epic, network.node), *arguments)
