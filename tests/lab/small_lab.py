# SPDX-License-Identifier: Apache-2.0
"""A small lab of its own, beside the one that may be running: two hosts, other names, another network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
NAME = "tst"
PAIR: dict[str, Any] = {
    "management": {"network": "10.97.0.0/24", "controller": "10.97.0.1"},
    "hosts": {
        "left": {"management": "10.97.0.2", "gateway": "172.31.0.2", "sysctls": {"net.ipv4.ip_forward": 1}},
        "right": {"management": "10.97.0.3", "packages": ["nftables", "tcpdump"]},
    },
    "links": [{"left": "up0 172.31.0.1/24", "right": "up0 172.31.0.2/24"}],
}


@dataclass(frozen=True)
class Play:
    """How a playbook ended and what it printed."""

    status: int
    output: str

    @property
    def changed(self) -> int:
        """The number of tasks that changed something."""
        counts = re.findall(r"changed=(\d+)", self.output)
        assert self.status == 0, self.output
        assert counts, self.output
        return int(counts[-1])


class SmallLab:
    """Drives the lab's playbooks as a person does, with the small lab's name and files."""

    def __init__(self, directory: Path) -> None:
        self.ssh = directory / "state/ssh"
        self.topology = directory / "topology.yml"
        self.write(PAIR)

    def write(self, topology: dict[str, Any]) -> None:
        """Make this the lab's topology."""
        self.topology.write_text(yaml.safe_dump(topology))

    def boot(self, *arguments: str, **variables: Any) -> Play:
        """Run playbooks/lab.yml."""
        return self._play("lab", *arguments, lab_topology_file=str(self.topology), **variables)

    def clean(self, *arguments: str) -> Play:
        """Run playbooks/lab_clean.yml."""
        return self._play("lab_clean", *arguments)

    def run(self, host: str, command: str) -> str:
        """What a command prints on a host."""
        ssh = ["ssh", "-F", str(self.ssh / "config"), "-o", "BatchMode=yes", host, command]
        result = call(ssh)
        assert result.returncode == 0, f"{command!r} on {host}: {result.stdout}{result.stderr}"
        return result.stdout.strip()

    def cgroup(self, host: str) -> Path:
        """The host's group in the hierarchy of cgroup v2."""
        groups = Path("/sys/fs/cgroup")
        unified = groups if (groups / "cgroup.controllers").exists() else groups / "unified"
        return unified / f"epic-{NAME}" / host

    def _play(self, playbook: str, *arguments: str, **variables: Any) -> Play:
        values = json.dumps({"lab_name": NAME, "lab_ssh_directory": str(self.ssh), **variables})
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        command = [program, "-i", "localhost,", f"playbooks/{playbook}.yml", "-e", values, *arguments]
        result = call(command)
        return Play(result.returncode, result.stdout + result.stderr)


def call(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program to its end from the checkout."""
    environment = {**os.environ, "ANSIBLE_FORCE_COLOR": "0"}
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
