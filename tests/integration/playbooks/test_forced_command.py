# SPDX-License-Identifier: Apache-2.0
"""The module's options on their way through the forced command, with Ansible and its ssh connection."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
ROLE = ROOT / "roles/gateway_node"
PACKAGE = "ansible_collections.epic.gateway.plugins.module_utils."
COMMAND = "/usr/libexec/epic/epic-instances"
INSTANCE = {
    "gateway": "root.web",
    "account": "root",
    "node_id": "epic-root.web",
    "public_address": "203.0.113.7",
    "inside_address": "100.64.0.1",
    "inside_address6": "fd65:7069:6300::6440:1",
    "interface": "epg644000012b86",
    "mtu": 1452,
    "envoy_version": "0.0.0",
}


class Node:
    """A host that is reached by an `ssh` of ours, which does what sshd would with a forced command."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.request = directory / "request"

    def has(self, *answer: str) -> None:
        """Its forced command is this shell script."""
        script = self.directory / "ssh"
        asked = "for SSH_ORIGINAL_COMMAND; do :; done; export SSH_ORIGINAL_COMMAND\n"
        script.write_text("#!/bin/sh\n" + asked + "\n".join(answer) + "\n")
        script.chmod(0o755)

    def run(self, *options: str, instance: dict[str, Any] = INSTANCE) -> dict[str, Any]:
        """The result of a run of the playbook `gateways`."""
        hosts = {
            "ansible_host": "192.0.2.1",
            "ansible_ssh_executable": str(self.directory / "ssh"),
            "epic_forced_command": True,
            "epic_instances": [instance],
        }
        inventory = self.directory / "hosts.json"
        inventory.write_text(json.dumps({"all": {"hosts": {"epic1": hosts}}}))
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_HOME": str(self.directory / "home"),
            "ANSIBLE_CONFIG": str(self.directory / "ansible.cfg"),
            "ANSIBLE_INVENTORY_ENABLED": "yaml",
            "ANSIBLE_STRATEGY": "linear",
        }
        (self.directory / "ansible.cfg").touch()
        play = ROOT / "playbooks/gateways.yml"
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-v", *options]
        done = subprocess.run(
            [*command, "-i", str(inventory), str(play)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return _result(done.stdout + done.stderr)


def _result(output: str) -> dict[str, Any]:
    """The first result that Ansible printed as JSON."""
    _, arrow, rest = output.partition("=> ")
    assert arrow, output
    result, _ = json.JSONDecoder().raw_decode(rest)
    assert isinstance(result, dict)
    return result


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_the_options_arrive_and_the_answer_is_the_result(node: Node) -> None:
    answer = {"changed": True, "instances": [{"gateway": "root.web", "action": "create"}]}
    node.has(f"cat > {node.request}", f"echo '{json.dumps(answer)}'")
    result = node.run("--check")
    assert {key: result[key] for key in answer} == answer
    assert json.loads(node.request.read_text()) == {
        "instances": [{**INSTANCE, "concurrency": 1, "may_restart": True}],
        "check_mode": True,
        "diff": False,
    }


def test_a_second_address_arrives_and_nodes_of_any_version_take_gateways_without(node: Node) -> None:
    """The test before has none, and nothing of one arrives."""
    node.has(f"cat > {node.request}", "echo '{\"changed\": false}'")
    node.run(instance={**INSTANCE, "alt_address": "2001:db8::7"})
    (arrived,) = json.loads(node.request.read_text())["instances"]
    assert arrived["alt_address"] == "2001:db8::7"


def test_the_command_itself_answers(node: Node) -> None:
    code = f"from {PACKAGE}_instance_command import main; import sys; sys.exit(main())"
    lock = f"import {PACKAGE}_instance_command as c; c.LOCK = '{node.directory}/lock'"
    idle = "c._run = lambda command: (0, '', '')"
    node.has(f'PYTHONPATH={ROOT}/collections exec {sys.executable} -S -c "{lock}; {idle}; {code}"')
    (answer,) = node.run("--check")["instances"]
    error = "Envoy 0.0.0 is not in /opt/envoy; site.yml installs the pinned one"
    assert answer == {"gateway": "root.web", "action": "none", "error": error}


def test_a_node_without_the_command_is_named_as_such(node: Node) -> None:
    node.has('exec "$SSH_ORIGINAL_COMMAND"')
    assert f"the node has no {COMMAND}. Run site.yml for it." in node.run()["msg"]


def test_a_command_that_breaks_is_quoted(node: Node) -> None:
    node.has("cat >/dev/null", "echo 'Traceback: no disk' >&2", "exit 1")
    assert "gave no answer (exit status 1); it said: Traceback: no disk" in node.run()["msg"]


def test_a_node_that_is_away_is_unreachable(node: Node) -> None:
    node.has("echo 'No route to host' >&2", "exit 255")
    assert node.run()["unreachable"] is True


def test_the_role_installs_all_that_the_command_imports() -> None:
    installed = set(yaml.safe_load((ROLE / "vars/main.yml").read_text())["_gateway_node_library"])
    needed, waiting = set(), {"_instance_command"}
    while waiting:
        name = waiting.pop()
        needed.add(f"{name}.py")
        tree = ast.parse((ROOT / f"plugins/module_utils/{name}.py").read_text())
        modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not [module for module in modules if module.startswith("ansible.")], "Ansible is not there"
        found = {module.removeprefix(PACKAGE) for module in modules if module.startswith(PACKAGE)}
        waiting |= {module for module in found if f"{module}.py" not in needed}
    assert installed == needed
