# SPDX-License-Identifier: Apache-2.0
"""What does a run of the control plane cost through the runs' one command, and what as a copied module?

On the lab as `make demo` leaves it, without changing anything: each run finds everything as it is wanted.
Both ways use one SSH connection that stays open, as the control plane's runs do.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from first_request import CHECKOUT

SSH = CHECKOUT / ".cache/lab/ssh/config"
CONTROL = "epic1"
HOSTS = "/var/lib/epic/control/runs/hosts.json"
ROUNDS = 10


def planned() -> dict[str, object]:
    """The instances of each node, as the control plane's last run had them."""
    done = subprocess.run(
        ["ssh", "-F", str(SSH), CONTROL, f"cat {HOSTS}"], capture_output=True, text=True, check=True
    )
    hosts = json.loads(done.stdout)["all"]["hosts"]
    return {name: {"epic_instances": values["epic_instances"]} for name, values in hosts.items()}


def run(directory: Path, *, forced: bool) -> tuple[float, float]:
    """Seconds by the clock and of processor time here that a run takes."""
    options = (f"-F {SSH}", "-o ControlMaster=auto", "-o ControlPersist=60")
    values = {
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_args": " ".join(options),
        "epic_forced_command": forced,
    }
    inventory = directory / "hosts.json"
    inventory.write_text(json.dumps({"all": {"hosts": planned(), "vars": values}}))
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(directory / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / "collections"),
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_STRATEGY": "linear",
        "ANSIBLE_INVENTORY_ENABLED": "yaml",
    }
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory)]
    before, begin = os.times(), time.monotonic()
    subprocess.run(
        [*command, str(CHECKOUT / "playbooks/gateways.yml")],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    wall, after = time.monotonic() - begin, os.times()
    used = sum(after[2:4]) - sum(before[2:4])
    return wall, used


def main() -> None:
    """Print the medians of both ways, taken by turns, and their ratio."""
    found: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "ansible.cfg").touch()
        for _ in range(ROUNDS):
            for forced, times in found.items():
                times.append(run(Path(name), forced=forced))
    wall = {forced: statistics.median(w for w, _ in times) for forced, times in found.items()}
    used = {forced: statistics.median(u for _, u in times) for forced, times in found.items()}
    print(f"one command: {wall[True]:.2f} s, {used[True]:.2f} s of processor time on the controller")
    print(f"module:      {wall[False]:.2f} s, {used[False]:.2f} s of processor time on the controller")
    print(f"ratio: {wall[False] / wall[True]:.2f}, {used[False] / used[True]:.2f}")


if __name__ == "__main__":
    main()
