# SPDX-License-Identifier: Apache-2.0
"""What a lab leaves on this machine, found by its name and management network."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path


def remains(name: str, network: str) -> list[str]:
    """Links, mounts, control groups, files and processes of the lab; `network` is a prefix as `10.99.0.`."""
    links = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout)
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    groups = Path("/sys/fs/cgroup").glob(f"*/epic-{name}"), Path("/sys/fs/cgroup").glob(f"epic-{name}")
    return [
        *(link["ifname"] for link in links if link["ifname"].startswith(f"{name}-")),
        *(mount for mount in mounts if f"/{name}-" in mount or f"epic-{name}" in mount),
        *(str(path) for pattern in groups for path in pattern),
        *(str(path) for path in Path("/run").glob(f"*/{name}-*")),
        *(str(path) for path in Path("/run/systemd").glob(f"nspawn/*/{name}-*")),
        *(str(path) for path in Path("/run").glob(f"epic-{name}")),
        *_processes(name, network),
    ]


def _processes(name: str, network: str) -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"={name}-" in command or f"netns/{name}-" in command or network in command:
            yield command
