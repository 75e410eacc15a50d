# SPDX-License-Identifier: Apache-2.0
"""Network namespaces and links of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible_collections.epic.gateway.plugins.module_utils._lab_plan import seen_network
from ansible_collections.epic.gateway.plugins.module_utils._lab_shell import attempt, run


def namespaces() -> set[str]:
    """All named network namespaces."""
    directory = Path("/run/netns")
    return {entry.name for entry in directory.iterdir()} if directory.is_dir() else set()


def links(namespace: str | None = None) -> list[dict[str, Any]]:
    """The answer of `ip -json address`, here or in a namespace."""
    return _ask(["-json", "address"], namespace)


def network_of(namespace: str) -> frozenset[str]:
    """What the namespace's network has, in the words of the plan; nothing if there is no such namespace."""
    if namespace not in namespaces():
        return frozenset()
    return seen_network(links(namespace), _ask(["-json", "route", "show", "default"], namespace))


def batch(commands: Iterable[str], namespace: str | None = None) -> None:
    """Give `ip` several commands at once."""
    text = "".join(f"{command}\n" for command in commands)
    if text:
        run(["ip", *_in(namespace), "-batch", "-"], text)


def add_namespace(namespace: str) -> None:
    """Make a namespace unless there is one."""
    if namespace not in namespaces():
        run(["ip", "netns", "add", namespace])


def delete_namespace(namespace: str) -> None:
    """End what runs in a namespace and delete it: its links by name, as the kernel is slow to do it."""
    if namespace not in namespaces():
        return
    for pid in run(["ip", "netns", "pids", namespace]).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    for link in links(namespace):
        if "link_index" in link:
            # The other end may vanish with a namespace inside the host between the question and this.
            attempt(["ip", "-n", namespace, "link", "delete", link["ifname"]])
    run(["ip", "netns", "delete", namespace])


def has_link(name: str) -> bool:
    """Whether this machine's own namespace has the link."""
    return any(link["ifname"] == name for link in links())


def delete_link(name: str) -> None:
    """Delete a link of this machine's own namespace if it is there."""
    if has_link(name):
        run(["ip", "link", "delete", name])


def bridge_ports(bridge: str) -> set[str]:
    """The links attached to a bridge."""
    return {link["ifname"] for link in links() if link.get("master") == bridge}


def _ask(arguments: list[str], namespace: str | None) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = json.loads(run(["ip", *_in(namespace), *arguments]) or "[]")
    return answer


def _in(namespace: str | None) -> list[str]:
    return ["-n", namespace] if namespace else []
