# SPDX-License-Identifier: Apache-2.0
"""A node leaves a cluster that cannot be asked: only where that is said, and then it does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import certifi
import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def closed() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def leave(directory: Path, port: int, control: dict[str, object], *arguments: str) -> tuple[int, str]:
    """How the role's part for nodes ends on this machine, and what Ansible says of it."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    nodes = {"hosts": {"epic2": local}}
    groups = {"epic_control": {"hosts": {"control": local | control}}, "epic_nodes": nodes}
    (directory / "hosts.json").write_text(json.dumps({"all": {"children": groups}}))
    (directory / "user.yaml").write_text("username: admin\npassword: secret\n")
    api = {
        "url": f"https://localhost:{port}",
        "credential_file": str(directory / "user.yaml"),
        "ca_file": certifi.where(),
    }
    task = {"ansible.builtin.import_role": {"name": "epic.gateway.decommission", "tasks_from": "node"}}
    then = {"name": "Go on", "ansible.builtin.debug": {"msg": "went on"}}
    play = [{"hosts": "epic_nodes", "gather_facts": False, "tasks": [task, then]}]
    (directory / "play.json").write_text(json.dumps(play))
    given = {"_decommission_api": api, "ansible_become": False}
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-playbook"),
            *("-i", "hosts.json", "-e", json.dumps(given), *arguments, "play.json"),
        ],
        cwd=directory,
        env={name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        | {
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_HOME": str(directory / ".ansible"),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, " ".join(done.stdout.split())


FORCED = ("-e", "decommission_force=true")
AWAY = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}


@pytest.mark.parametrize("control", [{}, AWAY], ids=["no API", "no control host"])
def test_a_node_stays_while_the_cluster_cannot_be_asked(
    tmp_path: Path, closed: int, control: dict[str, object]
) -> None:
    status, said = leave(tmp_path, closed, control)
    assert status != 0
    assert "The cluster still counts on epic2. To go on all the same, set decommission_force=true" in said
    assert "went on" not in said


@pytest.mark.parametrize("control", [{}, AWAY], ids=["no API", "no control host"])
def test_it_leaves_all_the_same_where_that_is_said(
    tmp_path: Path, closed: int, control: dict[str, object]
) -> None:
    status, said = leave(tmp_path, closed, control, *FORCED)
    assert status == 0, said
    assert "went on" in said
