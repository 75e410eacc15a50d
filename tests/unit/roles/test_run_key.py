# SPDX-License-Identifier: Apache-2.0
"""What the role grants to the key of the control plane's runs, as root and by sudo."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment, StrictUndefined

ROLE = Path(__file__).parents[3] / "roles/gateway_node"
COMMAND = "/usr/libexec/epic/epic-instances"


def rendered(name: str, user: str) -> str:
    """A variable of the role with this user of the runs."""
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))
    environment = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701 it makes no HTML
    environment.filters["ternary"] = lambda value, yes, no: yes if value else no
    values: dict[str, Any] = {
        "cluster_run_user": user,
        "gateway_node_run_key_from": "192.0.2.1",
        "_gateway_node_known": {"run_key": "ssh-ed25519 KEY"},
        "ansible_facts": {"getent_passwd": {user: ["x", "1", "1", "", f"/srv/{user}", "/bin/sh"]}},
    }
    command = variables["_gateway_node_run_command"]
    values["_gateway_node_run_command"] = environment.from_string(command).render(values)
    text = variables[name][0]["content"] if isinstance(variables[name], list) else variables[name]
    return environment.from_string(text).render(values)


@pytest.mark.parametrize(("user", "command"), [("root", COMMAND), ("ops", f"sudo -n {COMMAND}")])
def test_the_key_is_for_one_command_from_one_source(user: str, command: str) -> None:
    options = f'restrict,from="192.0.2.1",command="{command}"'
    assert rendered("_gateway_node_run_key", user) == f"{options} ssh-ed25519 KEY epic-runs"


def test_the_key_goes_where_the_users_home_is() -> None:
    assert rendered("_gateway_node_ssh", "ops") == "/srv/ops/.ssh"
    tasks = yaml.safe_load((ROLE / "tasks/runs.yml").read_text(encoding="utf-8"))
    kinds = [next(key for key in task if key.startswith("ansible.builtin.")) for task in tasks[2:5]]
    assert kinds == ["ansible.builtin.getent", "ansible.builtin.file", "ansible.builtin.lineinfile"]


def test_sudo_lets_the_user_run_the_command_without_arguments_terminal_or_password(tmp_path: Path) -> None:
    sudoers = rendered("_gateway_node_sudoers", "ops")
    _, defaults, grant = sudoers.splitlines()
    assert defaults.startswith(f"Defaults!{COMMAND} env_keep += ")
    assert defaults.endswith(", !requiretty")
    assert grant == f'ops ALL=(root) NOPASSWD: {COMMAND} ""'
    if visudo := shutil.which("visudo", path="/usr/sbin:/usr/bin"):
        (tmp_path / "sudoers").write_text(sudoers, encoding="utf-8")
        done = subprocess.run([visudo, "--check", "--file", str(tmp_path / "sudoers")], check=False)
        assert done.returncode == 0
