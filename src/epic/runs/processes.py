# SPDX-License-Identifier: Apache-2.0
"""The processes of a run: all bear its mark in their environment, whatever session or parent they have."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MARK = "EPIC_RUN"
_END_SECONDS = 3.0


def end_marked(run: str) -> None:
    """Kill every process of the run, and wait a little until they have ended."""
    end = time.monotonic() + _END_SECONDS
    while time.monotonic() < end and (pids := list(marked(run))):
        for pid in pids:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def marked(run: str) -> Iterator[int]:
    """The processes of the run."""
    wanted = f"{MARK}={run}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)
