# SPDX-License-Identifier: Apache-2.0
"""What runs need to know of their surroundings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunSettings:
    """Where runs work and how they reach the nodes."""

    directory: Path
    playbook: Path
    collections: Path
    ssh_key: Path
    envoy_version: str
    user: str = "root"
    python: str = "/usr/bin/python3"
    timeout_seconds: int = 300
