# SPDX-License-Identifier: Apache-2.0
"""The lab's doings on this machine: control groups, network namespaces, disks and systemd-nspawn. All I/O, no decisions."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ansible_collections.epic.gateway.plugins.module_utils._lab_plan import File, Names, seen_network, supervisor_script

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CGROUPS = Path("/sys/fs/cgroup")
_NSPAWN_STATE = Path("/run/systemd/nspawn")
_CONSOLE_LINES = 40


class LabError(Exception):
    """The lab could not be brought into the wanted state; says what failed and where to look."""


def run(command: list[str], text: str | None = None) -> str:
    """Run a program to its end; its output, or LabError with what it complained of."""
    try:
        result = subprocess.run(
            command, input=text, stdin=None if text is not None else subprocess.DEVNULL, capture_output=True,
            text=True, check=False, env={**os.environ, "PATH": _PATH, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    except FileNotFoundError:
        raise LabError(f"the program {command[0]!r} is not installed; `make setup-lab` installs what the lab needs") from None
    if result.returncode != 0:
        raise LabError(f"{' '.join(command)} failed: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# --- control groups -------------------------------------------------------------------------------------------


def _hierarchies() -> list[Path]:
    """The hierarchies a host gets a group of its own in: the one of cgroup v2, or what a hybrid layout has."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [_CGROUPS / name for name in ("systemd", "unified", "cpu", "freezer") if (_CGROUPS / name).is_dir()]


def host_cgroups(names: Names, host: str) -> list[Path]:
    return [hierarchy / names.cgroup / host for hierarchy in _hierarchies()]


def cgroup_hosts(names: Names) -> set[str]:
    """Hosts that have control groups."""
    groups = [hierarchy / names.cgroup for hierarchy in _hierarchies()]
    return {entry.name for group in groups if group.is_dir() for entry in group.iterdir() if entry.is_dir()}


def _unified(names: Names, host: str) -> Path:
    roots = [root for root in _hierarchies() if (root / "cgroup.procs").exists() and root.name in ("cgroup", "unified")]
    if not roots:
        raise LabError("this machine has no cgroup v2 hierarchy, at /sys/fs/cgroup or /sys/fs/cgroup/unified")
    return roots[0] / names.cgroup / host


def has_processes(names: Names, host: str) -> bool:
    events = _unified(names, host) / "cgroup.events"
    return events.exists() and "populated 1" in events.read_text(encoding="ascii")


def is_frozen(names: Names, host: str) -> bool:
    states = [group / "freezer.state" for group in host_cgroups(names, host)]
    old = any(state.exists() and state.read_text(encoding="ascii").strip() != "THAWED" for state in states)
    freeze = _unified(names, host) / "cgroup.freeze"
    return old or (freeze.exists() and freeze.read_text(encoding="ascii").strip() == "1")


def thaw(names: Names, host: str) -> None:
    for group in host_cgroups(names, host):
        for name, value in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            if (group / name).exists():
                (group / name).write_text(value, encoding="ascii")


def kill(names: Names, hosts: Iterable[str]) -> None:
    """End all processes of the hosts: first the machines, so that systemd-nspawn tidies up, then whatever is left."""
    hosts = list(hosts)
    for host in hosts:
        thaw(names, host)
        _kill_group(_unified(names, host) / "payload")
    if not wait_for(lambda: not any(has_processes(names, host) for host in hosts), 3):
        for host in hosts:
            _kill_group(_unified(names, host))
        if not wait_for(lambda: not any(has_processes(names, host) for host in hosts), 10):
            left = [host for host in hosts if has_processes(names, host)]
            raise LabError(f"processes of {', '.join(left)} survive SIGKILL; see cgroup.procs in {_unified(names, left[0])}")


def _kill_group(group: Path) -> None:
    if (group / "cgroup.kill").exists():
        (group / "cgroup.kill").write_text("1", encoding="ascii")


def remove_cgroups(groups: Iterable[Path]) -> None:
    """Remove groups without processes, and the groups in them."""
    for group in groups:
        for directory, _, _ in os.walk(group, topdown=False):
            # A group stays busy for some milliseconds after its last process has ended.
            wait_for(lambda path=directory: _rmdir(Path(path)), 3)


def lab_cgroups(names: Names) -> list[Path]:
    return [hierarchy / names.cgroup for hierarchy in _hierarchies()]


def _rmdir(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


# --- network --------------------------------------------------------------------------------------------------


def namespaces() -> set[str]:
    directory = Path("/run/netns")
    return {entry.name for entry in directory.iterdir()} if directory.is_dir() else set()


def links(namespace: str | None = None) -> list[dict]:
    """The answer of `ip -json address` here or in a namespace."""
    where = ["-n", namespace] if namespace else []
    return json.loads(run(["ip", *where, "-json", "address"]) or "[]")


def network_of(namespace: str) -> frozenset[str]:
    """What the namespace's network has, in the words of the plan."""
    if namespace not in namespaces():
        return frozenset()
    routes = json.loads(run(["ip", "-n", namespace, "-json", "route", "show", "default"]) or "[]")
    return seen_network(links(namespace), routes)


def batch(commands: Iterable[str], namespace: str | None = None) -> None:
    """Give `ip` several commands at once."""
    text = "".join(f"{command}\n" for command in commands)
    if text:
        run(["ip", *(["-n", namespace] if namespace else []), "-batch", "-"], text)


def add_namespace(namespace: str) -> None:
    if namespace not in namespaces():
        run(["ip", "netns", "add", namespace])


def delete_namespace(namespace: str) -> None:
    """Delete a namespace, its links by name first: the kernel would take its time over them."""
    if namespace not in namespaces():
        return
    for pid in run(["ip", "netns", "pids", namespace]).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), 9)
    cables = [link["ifname"] for link in links(namespace) if link.get("link_index") and link["ifname"] != "lo"]
    batch((f"link delete {name}" for name in cables), namespace)
    run(["ip", "netns", "delete", namespace])


def bridge_ports(bridge: str) -> set[str]:
    return {link["ifname"] for link in links() if link.get("master") == bridge}


def delete_link(name: str) -> None:
    if any(link["ifname"] == name for link in links()):
        run(["ip", "link", "delete", name])


# --- disks ----------------------------------------------------------------------------------------------------


def mount_runtime(names: Names) -> None:
    """A file system in memory for all that the lab writes: removing it is one unmount."""
    runtime = Path(names.runtime)
    if not os.path.ismount(runtime):
        runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
        run(["mount", "-t", "tmpfs", "-o", "mode=0755,size=75%", "epic-lab", str(runtime)])


def mount_disk(names: Names, host: str, image: Path) -> Path:
    """The host's disk: its own changes over the image. The mounted directory."""
    directory = Path(names.directory(host))
    upper, work, root = (directory / part for part in ("upper", "work", "root"))
    for path in (upper, work, root):
        path.mkdir(parents=True, exist_ok=True)
    if not os.path.ismount(root):
        run(["mount", "-t", "overlay", "-o", f"lowerdir={image},upperdir={upper},workdir={work}", "lab", str(root)])
    return root


def write_files(root: Path, files: Iterable[File]) -> None:
    for file in files:
        path = root / file.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file.mode)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(file.content)
        path.chmod(file.mode)


def remove_disk(names: Names, host: str) -> None:
    directory = Path(names.directory(host))
    unmount(directory / "root")
    shutil.rmtree(directory, ignore_errors=True)


def unmount(directory: Path) -> None:
    """Unmount; what is still busy after some seconds goes when its last user does."""

    def done() -> bool:
        if not os.path.ismount(directory):
            return True
        return subprocess.run(["umount", str(directory)], capture_output=True, check=False).returncode == 0

    if not wait_for(done, 3):
        run(["umount", "--lazy", str(directory)])


# --- machines -------------------------------------------------------------------------------------------------


def start(names: Names, host: str) -> subprocess.Popen:
    """Start a host's supervisor, which outlives this program."""
    groups = host_cgroups(names, host)
    for group in groups:
        group.mkdir(parents=True, exist_ok=True)
    with (Path(names.directory(host)) / "console.log").open("ab") as console:
        return subprocess.Popen(
            ["/bin/bash", "-c", supervisor_script(names, host, map(str, groups))],
            stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True, cwd="/",
            env={"PATH": _PATH, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip


def answers(address: str, patience: float) -> bool:
    """Whether an SSH server greets at the address within `patience` seconds."""
    return wait_for(lambda: _greets(address), patience)


def _greets(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def console_tail(names: Names, host: str) -> str:
    log = Path(names.directory(host)) / "console.log"
    if not log.exists():
        return "(it wrote nothing)"
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_CONSOLE_LINES:])


def forget_machine(names: Names, host: str) -> None:
    """Remove what systemd-nspawn keeps about a machine that was killed together with it."""
    for leftover in _NSPAWN_STATE.glob(f"*/{names.namespace(host)}"):
        shutil.rmtree(leftover, ignore_errors=True)


def close_ssh(names: Names) -> None:
    """End Ansible's kept SSH connections to the lab."""
    for path in _sockets(Path(names.runtime) / "ssh"):
        subprocess.run(["ssh", "-O", "exit", "-o", f"ControlPath={path}", "lab"], capture_output=True, check=False)


def _sockets(directory: Path) -> Iterator[Path]:
    if directory.is_dir():
        yield from (path for path in directory.iterdir() if path.is_socket())
