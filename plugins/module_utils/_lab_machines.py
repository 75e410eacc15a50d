# SPDX-License-Identifier: Apache-2.0
"""Disks of the lab's hosts, and the systemd-nspawn machines that run on them."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path

from ansible_collections.epic.gateway.plugins.module_utils._lab_cgroups import host_cgroups
from ansible_collections.epic.gateway.plugins.module_utils._lab_plan import File, Names, supervisor_script
from ansible_collections.epic.gateway.plugins.module_utils._lab_shell import PATH, attempt, run, wait_for

_NSPAWN_STATE = Path("/run/systemd/nspawn")
_CONSOLE_LINES = 40


def mount_runtime(names: Names) -> None:
    """A file system in memory for all that the lab writes: removing it is one unmount."""
    runtime = Path(names.runtime)
    if not runtime.is_mount():
        runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
        run(["mount", "-t", "tmpfs", "-o", "mode=0755,size=75%", names.cgroup, str(runtime)])


def mount_disk(names: Names, host: str, layers: Iterable[Path]) -> Path:
    """The host's disk: its own changes over the layers. The directory where it is mounted."""
    directory = Path(names.directory(host))
    upper, work, root = (directory / part for part in ("upper", "work", "root"))
    for path in (upper, work, root):
        path.mkdir(parents=True, exist_ok=True)
    if not root.is_mount():
        lower = ":".join(map(str, layers))
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        run(["mount", "-t", "overlay", "-o", options, names.namespace(host), str(root)])
    return root


def write_files(root: Path, files: Iterable[File]) -> None:
    """Write files below a directory, in place of what the image has there."""
    for file in files:
        path = root / file.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file.mode), "w") as stream:
            stream.write(file.content)
        path.chmod(file.mode)


def remove_disk(names: Names, host: str) -> None:
    """Remove a halted host's disk and log."""
    directory = Path(names.directory(host))
    unmount(directory / "root")
    shutil.rmtree(directory, ignore_errors=True)


def unmount(directory: Path) -> None:
    """Unmount; what is still busy after some seconds goes when its last user does."""

    def unmounted() -> bool:
        return not directory.is_mount() or attempt(["umount", str(directory)]).returncode == 0

    if not wait_for(unmounted, 3):
        run(["umount", "--lazy", str(directory)])


def start(names: Names, host: str) -> subprocess.Popen[bytes]:
    """Start a host's supervisor, which outlives this program."""
    groups = host_cgroups(names, host)
    for group in groups:
        group.mkdir(parents=True, exist_ok=True)
    script = supervisor_script(names, host, map(str, groups))
    # Whoever calls may be bound to one processor: Mitogen binds all that it starts on a machine of two.
    processors = ["taskset", "--cpu-list", f"0-{(os.cpu_count() or 1) - 1}"]
    with (Path(names.directory(host)) / "console.log").open("ab") as console:
        return subprocess.Popen(
            [*processors, "/bin/bash", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
            cwd="/",
            env={"PATH": PATH, "LC_ALL": "C.UTF-8"},
        )


def answers(address: str, patience: float) -> bool:
    """Whether an SSH server greets at the address within `patience` seconds; it is asked at least once."""
    return wait_for(lambda: _greets(address), patience)


def _greets(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def console_tail(names: Names, host: str) -> str:
    """The end of what the host wrote to its console."""
    log = Path(names.directory(host)) / "console.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n".join(lines[-_CONSOLE_LINES:]) or "(it wrote nothing)"


def forget_machine(names: Names, host: str) -> None:
    """Remove what systemd-nspawn keeps about a machine that was killed together with it."""
    for leftover in _NSPAWN_STATE.glob(f"*/{names.namespace(host)}"):
        shutil.rmtree(leftover, ignore_errors=True)
    root = Path(names.directory(host)) / "root"
    if root.is_mount():
        status = root.stat()
        (_NSPAWN_STATE / f"locks/inode-{status.st_dev}:{status.st_ino}").unlink(missing_ok=True)


def tidy_nspawn() -> None:
    """Remove systemd-nspawn's own directories when no machine is left in them."""
    for directory in (*_NSPAWN_STATE.glob("*"), _NSPAWN_STATE):
        with contextlib.suppress(OSError):
            directory.rmdir()


def close_ssh(names: Names) -> None:
    """End the SSH connections that Ansible keeps to the lab."""
    directory = Path(names.runtime) / "ssh"
    for path in directory.iterdir() if directory.is_dir() else ():
        if path.is_socket():
            attempt(["ssh", "-O", "exit", "-o", f"ControlPath={path}", "lab"])
