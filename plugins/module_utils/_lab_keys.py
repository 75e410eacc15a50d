# SPDX-License-Identifier: Apache-2.0
"""SSH keys of the lab and its hosts, and the settings of the SSH client that leads to them."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.epic.gateway.plugins.module_utils._lab_plan import Keys, known_hosts, ssh_config
from ansible_collections.epic.gateway.plugins.module_utils._lab_shell import run
from ansible_collections.epic.gateway.plugins.module_utils._lab_topology import Topology

_LOGIN = "id_ed25519"


def make_keys(directory: Path, topology: Topology) -> dict[str, Keys]:
    """Make the keys that are missing, and write the client's settings; the keys by host."""
    (directory / "hosts").mkdir(mode=0o700, parents=True, exist_ok=True)
    _make_key(directory / _LOGIN, "epic-lab")
    for host in topology.hosts:
        _make_key(directory / "hosts" / host.name, host.name)
    keys = read_keys(directory, topology)
    _write(directory / "known_hosts", known_hosts(topology, keys))
    _write(directory / "config", ssh_config(topology, str(directory)))
    return keys


def read_keys(directory: Path, topology: Topology) -> dict[str, Keys]:
    """The keys by host, empty where there are none."""
    paths = {host.name: directory / "hosts" / host.name for host in topology.hosts}
    login = _read(directory / f"{_LOGIN}.pub")
    return {
        name: Keys(_read(path), _read(path.with_name(f"{name}.pub")), login) for name, path in paths.items()
    }


def _make_key(path: Path, comment: str) -> None:
    if path.exists() and path.with_name(f"{path.name}.pub").exists():
        return
    path.unlink(missing_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii") if path.exists() else ""


def _write(path: Path, content: str) -> None:
    if _read(path) != content:
        path.write_text(content, encoding="ascii")
