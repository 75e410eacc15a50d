# SPDX-License-Identifier: Apache-2.0
"""The control groups of the lab's hosts, in the one hierarchy of cgroup v2 or in a hybrid layout's."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from ansible_collections.epic.gateway.plugins.module_utils._lab_plan import Names
from ansible_collections.epic.gateway.plugins.module_utils._lab_shell import LabError, wait_for

_CGROUPS = Path("/sys/fs/cgroup")


def _hierarchies() -> list[Path]:
    """Where hosts get groups of their own. The last is of cgroup v2, which can kill a group whole."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    hybrid = [_CGROUPS / name for name in ("systemd", "cpu", "freezer", "unified")]
    found = [directory for directory in hybrid if directory.is_dir()]
    if not found or found[-1].name != "unified":
        raise LabError(f"this machine has no cgroup v2 hierarchy at {_CGROUPS} or {_CGROUPS}/unified")
    return found


def lab_cgroups(names: Names) -> list[Path]:
    """The groups that hold the groups of all hosts."""
    return [hierarchy / names.cgroup for hierarchy in _hierarchies()]


def host_cgroups(names: Names, host: str) -> list[Path]:
    """The host's groups, one in each hierarchy; the last is of cgroup v2."""
    return [group / host for group in lab_cgroups(names)]


def cgroup_hosts(names: Names) -> set[str]:
    """Hosts that have control groups."""
    groups = [group for group in lab_cgroups(names) if group.is_dir()]
    return {entry.name for group in groups for entry in group.iterdir() if entry.is_dir()}


def has_processes(names: Names, host: str) -> bool:
    """Whether anything runs in the host, its supervisor included."""
    return "populated 1" in _read(host_cgroups(names, host)[-1] / "cgroup.events")


def is_frozen(names: Names, host: str) -> bool:
    """Whether the host was stopped by the freezer of either cgroup version."""
    groups = host_cgroups(names, host)
    return any(_read(group / "freezer.state") in ("FROZEN", "FREEZING") for group in groups) or (
        _read(groups[-1] / "cgroup.freeze") == "1"
    )


def thaw(names: Names, host: str) -> None:
    """Let a frozen host run on."""
    for group in host_cgroups(names, host):
        _write(group / "freezer.state", "THAWED")
        _write(group / "cgroup.freeze", "0")


def kill(names: Names, hosts: Iterable[str]) -> None:
    """End all processes of the hosts: the machines first, so that systemd-nspawn tidies up after them."""
    left = list(hosts)
    for part, patience in (("payload", 3), (".", 10)):
        for host in left:
            thaw(names, host)
            _write(host_cgroups(names, host)[-1] / part / "cgroup.kill", "1")
        wait_for(lambda: not any(has_processes(names, host) for host in left), patience)  # noqa: B023
        left = [host for host in left if has_processes(names, host)]
    if left:
        group = lab_cgroups(names)[-1]
        raise LabError(f"processes of {', '.join(left)} survive SIGKILL; they are in {group}")


def remove_cgroups(groups: Iterable[Path]) -> None:
    """Remove groups without processes, and the groups in them."""
    for group in groups:
        for directory, _names, _files in os.walk(group, topdown=False):
            # A group stays busy for some milliseconds after its last process has ended.
            wait_for(partial(_removed, Path(directory)), 3)


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except OSError:
        return not directory.exists()
    return True


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii").strip() if path.exists() else ""


def _write(path: Path, value: str) -> None:
    if path.exists():
        path.write_text(value, encoding="ascii")
