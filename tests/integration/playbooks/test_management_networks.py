# SPDX-License-Identifier: Apache-2.0
"""A site says where it is managed from; one that does not is refused before anything is changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ANYWHERE = ["0.0.0.0/0", "::/0"]
HOST = {
    "ansible_connection": "local",
    "gateway_node_underlay_interface": "lo",
    "linux_controller_underlay_interface": "lo",
}


def play(tmp_path: Path, group: str, tasks: str, *arguments: str) -> str:
    """What Ansible says of these tasks of a role on this machine."""
    role, _, name = tasks.partition("/")
    inventory = {"all": {"children": {group: {"hosts": {"host": HOST}}}}}
    task = {"ansible.builtin.import_role": {"name": f"epic.gateway.{role}", "tasks_from": name}}
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))
    (tmp_path / "play.json").write_text(
        json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [task]}])
    )
    command = [
        "ansible-playbook",
        "-i",
        str(tmp_path / "hosts.json"),
        *arguments,
        str(tmp_path / "play.json"),
    ]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        "ANSIBLE_STRATEGY": "linear",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return " ".join(done.stdout.replace("\\n", " ").replace('\\"', '"').split())


def managed_from(networks: list[str]) -> tuple[str, str]:
    return "--extra-vars", json.dumps({"cluster_management_networks": networks})


@pytest.mark.parametrize("mode", [(), ("--check",)], ids=["run", "check"])
@pytest.mark.parametrize("tasks", ["firewall/networks", "base/preflight"])
@pytest.mark.parametrize("group", ["epic_control", "epic_nodes"])
def test_a_site_that_does_not_say_is_refused_and_told_what_is_right(
    tmp_path: Path, group: str, tasks: str, mode: tuple[str, ...]
) -> None:
    said = play(tmp_path, group, tasks, *mode)
    assert "cluster_management_networks is not set" in said, said
    assert "cluster_management_networks: [192.0.2.0/26]" in said
    assert 'cluster_management_networks: [0.0.0.0/0, "::/0"]' in said
    assert "failed=1" in said


@pytest.mark.parametrize("networks", [["192.0.2.0/26"], ANYWHERE], ids=["somewhere", "anywhere"])
def test_a_site_that_says_is_taken_at_its_word(tmp_path: Path, networks: list[str]) -> None:
    said = play(tmp_path, "epic_nodes", "firewall/networks", *managed_from(networks))
    assert "failed=0" in said, said
    said = play(tmp_path, "epic_nodes", "base/preflight", *managed_from(networks))
    assert "cluster_management_networks" not in said, said


def test_linux_clients_have_no_ports_of_management_to_close(tmp_path: Path) -> None:
    said = play(tmp_path, "linux_clients", "base/preflight")
    assert "Refuse a host that is not fit" in said, said
    assert "cluster_management_networks" not in said, said
