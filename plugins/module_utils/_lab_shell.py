# SPDX-License-Identifier: Apache-2.0
"""Programs that the lab runs on this machine, and waiting for what they cause."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class LabError(Exception):
    """The lab could not be brought into the wanted state; says what failed and where to look."""


def run(command: list[str], text: str = "") -> str:
    """Run a program to its end; its output, or LabError with what it complained of."""
    result = attempt(command, text)
    if result.returncode != 0:
        raise LabError(f"{' '.join(command)} failed: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout


def attempt(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program that may fail."""
    environment = {**os.environ, "PATH": PATH, "LC_ALL": "C.UTF-8"}
    try:
        return subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, env=environment
        )
    except FileNotFoundError:
        raise LabError(f"{command[0]} is not installed; tools/setup --lab installs it") from None


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came true in time. It is asked at least once."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
