# SPDX-License-Identifier: Apache-2.0
"""Network namespaces held by a descriptor: nothing of them is left when the process ends."""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """`with namespace:` runs the calling thread, its new sockets and its subprocesses in it."""

    def __init__(self, ipv6: bool = False) -> None:
        maker = threading.Thread(target=self._make)
        self._outer: list[int] = []
        self.fd = -1
        maker.start()
        maker.join()
        assert self.fd >= 0, "cannot make a network namespace"
        self.run("ip link set lo up")
        # The kernel would send of itself otherwise, and tests count packets.
        if not ipv6:
            self.sysctl("ipv6/conf/all/disable_ipv6", 1)
            self.sysctl("ipv6/conf/default/disable_ipv6", 1)
        else:
            self.sysctl("ipv6/conf/default/accept_dad", 0)
            self.sysctl("ipv6/conf/default/router_solicitations", 0)

    def _make(self) -> None:
        if _libc.unshare(_CLONE_NEWNET) == 0:
            self.fd = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)

    def close(self) -> None:
        os.close(self.fd)

    def __enter__(self) -> Namespace:
        own = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        self._outer.append(os.open(own, os.O_RDONLY))
        _enter(self.fd)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outer = self._outer.pop()
        _enter(outer)
        os.close(outer)

    def run(self, *commands: str) -> str:
        """Run commands there; the output of the last one."""
        if len(commands) > 1 and all(command.startswith("ip ") for command in commands):
            return self._run_batch([command.removeprefix("ip ") for command in commands])
        output = ""
        with self:
            for command in commands:
                done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
                output = done.stdout
        return output

    def _run_batch(self, lines: list[str]) -> str:
        """Many commands of `ip` in one process, for a namespace is made of dozens."""
        batch = "\n".join(lines)
        with self:
            done = subprocess.run(
                ["ip", "-batch", "-"], input=batch + "\n", capture_output=True, text=True, check=False
            )
        assert done.returncode == 0, f"{batch}: {done.stderr}{done.stdout}"
        return done.stdout

    def sysctl(self, name: str, value: int | str) -> None:
        with self:
            Path("/proc/sys/net", name).write_text(str(value), encoding="ascii")

    def nft(self, rules: str) -> None:
        with self:
            subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def join(left: Namespace, left_name: str, right: Namespace, right_name: str) -> None:
    """A pair of interfaces between two namespaces, both up."""
    left.run(
        f"ip link add {left_name} type veth peer name {right_name} netns /proc/{os.getpid()}/fd/{right.fd}"
    )
    for namespace, name in ((left, left_name), (right, right_name)):
        namespace.run(f"ip link set {name} up")


def eventually(condition: Callable[[], bool], within: float = 60.0) -> bool:
    """Poll until true; false when the time is over."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return condition()
