# SPDX-License-Identifier: Apache-2.0
"""The lab: its hosts and links from the inventory, and commands on hosts."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
# The lab's runtime directory goes with the lab.
STATE = Path("/run/epic-lab")
SSH_CONFIG = CHECKOUT / ".cache/lab/ssh/config"
CONFIGURATION = STATE / "epicctl.yaml"


class StepFailed(Exception):
    """A step that did not work; `look_at` are commands that show why."""

    def __init__(self, message: str, *look_at: str) -> None:
        super().__init__(message)
        self.look_at = look_at


@dataclass(frozen=True)
class Topology:
    """Hosts, and for each the neighbours with the addresses on the link: (neighbour, own, theirs)."""

    hosts: dict[str, dict[str, Any]]
    links: dict[str, list[tuple[str, str, str]]]

    def address(self, host: str) -> str:
        """The host's first address."""
        return self.links[host][0][1]


def read_topology() -> Topology:
    """The topology of the inventory."""
    content = yaml.safe_load((CHECKOUT / "inventories/lab/topology.yml").read_text())
    links: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for link in content["links"]:
        (one, at_one), (other, at_other) = link.items()
        own, theirs = _address(at_one), _address(at_other)
        links[one].append((other, own, theirs))
        links[other].append((one, theirs, own))
    return Topology(content["hosts"], dict(links))


def _address(end: str) -> str:
    return end.split()[1].partition("/")[0]


def groups() -> dict[str, list[str]]:
    """Hosts of each group of the inventory."""
    content = yaml.safe_load((CHECKOUT / "inventories/lab/hosts.yml").read_text())
    return {name: list(group.get("hosts") or {}) for name, group in _groups(content["all"])}


def _groups(group: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, child in (group.get("children") or {}).items():
        yield name, child or {}
        yield from _groups(child or {})


def ssh(host: str, command: str) -> list[str]:
    """The arguments that run a command on a host."""
    return ["ssh", "-F", str(SSH_CONFIG), "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", host, command]


def shown_ssh(host: str, command: str) -> str:
    """The same for a person to copy, in the checkout's directory."""
    return f"ssh -F {SSH_CONFIG.relative_to(CHECKOUT)} {host} {command}"


def run(host: str, command: str, stdin: str = "") -> str:
    """What a command on a host prints."""
    done = subprocess.run(
        ssh(host, command), input=stdin, capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode:
        raise StepFailed(f"{host}: {done.stderr.strip() or done.stdout.strip()}", shown_ssh(host, "true"))
    return done.stdout


def logs(*units: tuple[str, str]) -> list[str]:
    """Commands that show the last lines of units: (host, unit)."""
    return [shown_ssh(host, f"journalctl -u {unit} -n 50 --no-pager") for host, unit in units]
