# SPDX-License-Identifier: Apache-2.0
"""Network namespaces that vanish with the process."""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
import threading
from pathlib import Path
from types import TracebackType

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _own() -> int:
    return os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Namespace:
    """`with namespace:` puts the thread, its new sockets and its new processes there. Do not await inside."""

    def __init__(self) -> None:
        outer = _own()
        try:
            if _libc.unshare(_CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare")
            self.fd = _own()
        finally:
            _enter(outer)
            os.close(outer)
        self._outer: list[int] = []
        self.run("ip link set lo up")

    def __enter__(self) -> Namespace:
        self._outer.append(_own())
        _enter(self.fd)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outer = self._outer.pop()
        _enter(outer)
        os.close(outer)

    def close(self) -> None:
        os.close(self.fd)

    def run(self, *commands: str) -> str:
        """Run the commands; the last one's output."""
        output = ""
        for command in commands:
            with self:
                done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}: {done.stderr}"
            output = done.stdout
        return output

    def sysctl(self, name: str, value: int, family: str = "ipv4") -> None:
        with self:
            Path(f"/proc/sys/net/{family}/{name}").write_text(str(value), encoding="ascii")

    def veth(self, name: str, other: Namespace, other_name: str) -> None:
        """A pair of interfaces, both up."""
        target = f"/proc/{os.getpid()}/fd/{other.fd}"
        self.run(f"ip link add {name} type veth peer name {other_name} netns {target}")
        self.run(f"ip link set {name} up")
        other.run(f"ip link set {other_name} up")
