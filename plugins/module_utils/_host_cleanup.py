# SPDX-License-Identifier: Apache-2.0
"""What EPIC has left on a host, and its removal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

Run = Callable[[list[str]], tuple[int, str, str]]
"""Runs a program; status 127 when the host does not have it. Returns status, output and errors."""

AGENT = "/opt/epic/bin/epic-agent"
AGENT_SETTINGS = "/etc/epic/agent.yaml"
AGENT_UNIT = "epic-agent.service"
ROUTER = "bird.service"
ROUTER_SETTINGS = "etc/bird/bird.conf"
MARK = "Managed by EPIC"
NAMESPACES = "run/netns/epic-*"
TABLES = {"epic", "epic_management"}
ROUTE_PROTOCOL = "50"
RULE = ("pref", "100", "lookup", "200")
FAMILIES = {"-4": "IPv4", "-6": "IPv6"}
KEY_COMMENT = " epic-runs"

PATHS = (
    "sys/fs/bpf/epic",
    "run/epic",
    "etc/systemd/system/epic-*",
    "etc/systemd/system/*.wants/epic-*",
    "etc/systemd/system/*.d/epic.conf",
    "etc/sysctl.d/*epic*.conf",
    "etc/sysusers.d/epic*.conf",
    "etc/tmpfiles.d/epic*.conf",
    "etc/sudoers.d/epic*",
    "usr/local/bin/epic*",
    "usr/local/sbin/epic*",
    "usr/libexec/epic",
    "etc/epic",
    "var/lib/epic",
    "opt/envoy",
    "opt/epic",
)
"""Below the root, in the order of removal: what a later attempt needs goes last."""

MARKED_PATHS = ("etc/systemd/system/sys-fs-bpf.mount", ROUTER_SETTINGS)
"""Places that others have files in too; they are EPIC's when they say so."""


class CleanupError(Exception):
    """A step of the removal that the host refused."""


@dataclass(frozen=True)
class Remains:
    """What is left of EPIC; nothing when all fields are empty."""

    units: tuple[str, ...] = ()
    router: bool = False
    namespaces: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    paths: tuple[str, ...] = field(default=())

    def lines(self) -> list[str]:
        """One line for each thing that is left, as people read it."""
        found = [
            *(f"unit {name}" for name in self.units),
            *([f"unit {ROUTER}"] if self.router else []),
            *(f"network namespace {name}" for name in self.namespaces),
            *(f"link {name}" for name in self.links),
            *(f"nftables table {name}" for name in self.tables),
            *(f"routing rule {' '.join(RULE)} of {FAMILIES[family]}" for family in self.rules),
            *(f"route {route}" for route in self.routes),
            *(f"key of the runs in {path}" for path in self.keys),
            *(f"user {name}" for name in self.users),
            *(f"group {name}" for name in self.groups),
        ]
        return [*found, *self.paths]


@dataclass(frozen=True)
class Host:
    """A host: how to run programs there, and where its files are."""

    run: Run
    root: Path = Path("/")
    key_files: tuple[str, ...] = ("/root/.ssh/authorized_keys",)

    def at(self, path: str) -> Path:
        """A path of the host, as this process reaches it."""
        return self.root / path.lstrip("/")

    def do(self, *command: str, gone: tuple[int, ...] = ()) -> None:
        """Run a command that must succeed, or end with a status that says there was nothing to do."""
        status, out, err = self.run(list(command))
        if status and status not in gone:
            raise CleanupError(f"{' '.join(command)}: {(err or out).strip()}")


def find(host: Host) -> Remains:
    """All that is left of EPIC on the host."""
    marked = [path for path in MARKED_PATHS if _is_ours(host.at(path))]
    paths = [f"/{path.relative_to(host.root)}" for path in (*_glob(host), *map(host.at, marked))]
    return Remains(
        units=tuple(_units(host)),
        router=ROUTER_SETTINGS in marked,
        namespaces=tuple(sorted(path.name for path in host.root.glob(NAMESPACES))),
        links=tuple(_links(host)),
        tables=tuple(_tables(host)),
        rules=tuple(family for family in FAMILIES if _output(host, "ip", family, "rule", "show", *RULE)),
        routes=tuple(_routes(host)),
        keys=tuple(path for path in host.key_files if _keys(host.at(path))),
        users=tuple(_known(host, "passwd", "epic")),
        groups=tuple(_known(host, "group", "epic", "epic-envoy")),
        paths=tuple(paths),
    )


def remove(host: Host, remains: Remains) -> list[str]:
    """Remove it; returns what is odd. The gateways are withdrawn before anything that serves them ends.

    Raises:
        CleanupError: a step was refused; what is left can be removed by another attempt.
    """
    odd = _stop(host, remains)
    # units took along what they had made
    left = find(host)
    for name in left.namespaces:
        host.do("ip", "netns", "delete", name)
    for name in _links(host):
        host.do("ip", "link", "delete", name)
    for table in left.tables:
        host.do("nft", "delete", "table", *table.split())
    for family in left.rules:
        host.do("ip", family, "rule", "delete", *RULE)
    for family in FAMILIES if left.routes else ():
        host.do("ip", family, "route", "flush", "table", "all", "protocol", ROUTE_PROTOCOL)
    for path in left.keys:
        _drop_keys(host.at(path))
    for path in left.paths:
        _delete(host.at(path))
    for name in left.users:
        host.do("userdel", name)
    # userdel takes the user's own group along
    for name in _known(host, "group", *left.groups):
        host.do("groupdel", name)
    host.do("systemctl", "daemon-reload")
    return odd


def _stop(host: Host, remains: Remains) -> list[str]:
    odd = []
    if AGENT_UNIT in remains.units:
        host.do("systemctl", "stop", AGENT_UNIT)
    if host.at(AGENT).exists() and host.at(AGENT_SETTINGS).exists():
        status, out, err = host.run([AGENT, "--config", AGENT_SETTINGS, "--cleanup"])
        if status:
            reason = (err or out).strip()
            odd.append(f"{AGENT} --cleanup failed, tunnel programs may be left until a reboot: {reason}")
    if remains.router:
        # its package may be gone, and with it the unit
        host.do("systemctl", "disable", "--now", ROUTER, gone=(1, 5))
    if remains.units:
        host.do("systemctl", "stop", *remains.units)
        host.run(["systemctl", "reset-failed", *remains.units])
    return odd


def _glob(host: Host) -> Iterator[Path]:
    for pattern in PATHS:
        yield from sorted(host.root.glob(pattern))


def _is_ours(path: Path) -> bool:
    try:
        return MARK in path.read_text("utf-8", "replace")[:200]
    except OSError:
        return False


def _output(host: Host, *command: str) -> str:
    """What a command says; nothing when it fails: the host lacks the program, or what it is asked for."""
    status, out, _err = host.run(list(command))
    return "" if status else out.strip()


def _units(host: Host) -> Iterator[str]:
    listed = _output(host, "systemctl", "list-units", "--all", "--plain", "--no-legend", "epic-*")
    for line in listed.splitlines():
        unit, _load, active = line.split()[:3]
        if active != "inactive":
            yield unit


def _links(host: Host) -> Iterator[str]:
    for link in json.loads(_output(host, "ip", "-json", "link", "show") or "[]"):
        if link["ifname"].startswith("epg"):
            yield link["ifname"]


def _tables(host: Host) -> Iterator[str]:
    for line in _output(host, "nft", "list", "tables").splitlines():
        _table, family, name = line.split()
        if name in TABLES:
            yield f"{family} {name}"


def _routes(host: Host) -> Iterator[str]:
    for family in FAMILIES:
        listed = _output(host, "ip", family, "route", "show", "table", "all", "protocol", ROUTE_PROTOCOL)
        yield from (line.strip() for line in listed.splitlines())


def _known(host: Host, database: str, *names: str) -> Iterator[str]:
    yield from (name for name in names if _output(host, "getent", database, name))


def _keys(path: Path) -> bool:
    return path.is_file() and any(line.endswith(KEY_COMMENT) for line in path.read_text().splitlines())


def _drop_keys(path: Path) -> None:
    kept = [
        line
        for line in path.read_text().splitlines(keepends=True)
        if not line.rstrip("\n").endswith(KEY_COMMENT)
    ]
    path.write_text("".join(kept))


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        return
    path.unlink(missing_ok=True)
    # a unit's drop-ins; directories such as /etc/tmpfiles.d are the distribution's
    if path.parent.name.endswith(".service.d") and not any(path.parent.iterdir()):
        path.parent.rmdir()
