# SPDX-License-Identifier: Apache-2.0
"""The collection with roles that change no host: each tells the played API where it was, or fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import certifi
from cluster_api import NODES

ROOT = Path(__file__).parents[3]
REAL = ("maintenance", "cluster", "decommission")
PLAYED = {
    "base": ("main", "bundle", "envoy"),
    "firewall": ("main",),
    "control_plane": ("main",),
    "router": ("main",),
    "gateway_node": ("main",),
    "linux_controller": ("main",),
}
CLIENTS = ("client1", "client2", "client3", "client4")
MANIFEST = {"envoy": {"version": "1.41.0"}, "python": {"python": "3.11", "machine": "x86_64"}}
GROUPS = {"epic_control": ("control",), "epic_nodes": NODES, "linux_clients": CLIENTS}


def make_collection(collection: Path) -> None:
    """The collection as it is, but for the roles that change hosts."""
    (collection / "roles").mkdir(parents=True)
    for name in ("plugins", "meta", "playbooks", "galaxy.yml"):
        (collection / name).symlink_to(ROOT / name)
    for name in REAL:
        (collection / "roles" / name).symlink_to(ROOT / "roles" / name)
    for role, files in PLAYED.items():
        for file in files:
            task = _say(role if file == "main" else file)
            if role == "gateway_node":
                task |= {"changed_when": True, "notify": "Restart"}
            place = collection / "roles" / role / "tasks" / f"{file}.yml"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps([task]))
    handlers = collection / "roles/gateway_node/handlers"
    handlers.mkdir()
    (handlers / "main.yml").write_text(json.dumps([_say("restart") | {"name": "Restart"}]))


def play_module(directory: Path, name: str, text: str) -> None:
    """Have the collection's module `name` be this one, beside the others as they are."""
    plugins = directory / "collections/ansible_collections/epic/gateway/plugins"
    plugins.unlink()
    (plugins / "modules").mkdir(parents=True)
    for path in (ROOT / "plugins").iterdir():
        if path.name != "modules":
            (plugins / path.name).symlink_to(path)
    for path in (ROOT / "plugins/modules").glob("*.py"):
        if path.stem != name:
            (plugins / "modules" / path.name).symlink_to(path)
    (plugins / "modules" / f"{name}.py").write_text(text)


def _say(what: str) -> dict[str, object]:
    """A task that tells the API what is done on a host; a module would take ten times as long."""
    url = f"played_api ~ '/deeds/' ~ inventory_hostname ~ '/{what}'"
    return {
        "name": f"Do {what}",
        "ansible.builtin.debug": {"msg": f"{{{{ lookup('ansible.builtin.url', {url}) }}}}"},
    }


def make_site(directory: Path, url: str) -> None:
    """An inventory on this machine, the collection, a bundle, and how hosts reach the API."""
    make_collection(directory / "collections/ansible_collections/epic/gateway")
    (directory / "bundle").mkdir()
    (directory / "bundle/manifest.json").write_text(json.dumps(MANIFEST))
    (directory / "user.yaml").write_text("username: admin\npassword: secret\n")
    write_inventory(directory, {})
    options = {"url": url, "credential_file": str(directory / "user.yaml"), "ca_file": certifi.where()}
    variables = {
        "played_api": url,
        "_maintenance_api": options,
        "_decommission_api": options,
        "_maintenance_pause": 0.2,
        "maintenance_ready_timeout": 60,
        "ansible_become": False,
        "cluster_bundle": str(directory / "bundle"),
    }
    (directory / "variables.json").write_text(json.dumps(variables))


def write_inventory(directory: Path, variables: Mapping[str, Mapping[str, object]]) -> None:
    """All hosts are this machine; `variables` are those of some."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    children = {
        group: {"hosts": {name: dict(variables.get(name, {})) for name in names}}
        for group, names in GROUPS.items()
    }
    (directory / "hosts.json").write_text(json.dumps({"all": {"vars": local, "children": children}}))


def play(directory: Path, playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook of the collection, with Ansible's own settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment |= {
        "ANSIBLE_COLLECTIONS_PATH": str(directory / "collections"),
        "ANSIBLE_HOME": str(directory / ".ansible"),
    }
    program = str(Path(sys.executable).parent / "ansible-playbook")
    command: Sequence[str] = [program, "-i", "hosts.json", "-e", "@variables.json", *arguments]
    return subprocess.run(
        [*command, f"epic.gateway.{playbook}"],
        cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
