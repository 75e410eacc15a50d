# SPDX-License-Identifier: Apache-2.0
"""The I/O of gateway instances: what a node has, and the carrying out of a plan."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ansible_collections.epic.gateway.plugins.module_utils._files import replace_file
from ansible_collections.epic.gateway.plugins.module_utils._instances import (
    CONFIGURATION,
    RUNTIME,
    UNITS,
    Action,
    Found,
    envoy_unit,
    namespace_unit,
    paths,
)

NAMESPACES = "/run/netns"
WANTS = f"{UNITS}/multi-user.target.wants"

Run = Callable[[list[str]], tuple[int, str, str]]


class ApplyError(Exception):
    """A step of the plan that the host refused."""


def find(run: Run) -> dict[str, Found]:
    """Everything on this node that belongs to a gateway's instance, by gateway."""
    active = _units(run)
    enabled = _names(WANTS, "epic-envoy@", ".service")
    namespaces = _names(NAMESPACES, "epic-", "")
    configured = set(_entries(CONFIGURATION)) | _names(UNITS, "epic-envoy@", ".service.d")
    gateways = configured | set(active) | enabled | namespaces
    return {
        gateway: Found(
            files=_files(gateway),
            running=active.get(gateway) == {"epic-envoy", "epic-netns"},
            enabled=gateway in enabled,
            namespace=gateway in namespaces,
        )
        for gateway in gateways
    }


def apply(run: Run, actions: list[Action]) -> dict[str, str]:
    """Carry out the plan, with one call of systemctl for each kind of step, not for each gateway.

    Returns what went wrong, by gateway; those with an error get no further step, the others are not held up.
    """
    steps = _Steps(run, actions)
    steps.stop()
    steps.remove()
    steps.write()
    steps.start()
    return steps.errors


class _Steps:
    """The steps of a plan; a gateway that failed takes part in no later one."""

    def __init__(self, run: Run, actions: list[Action]) -> None:
        self._run = run
        self._actions = [action for action in actions if action.changed]
        self.errors: dict[str, str] = {}

    def _of(self, *kinds: str) -> list[str]:
        return [a.gateway for a in self._actions if a.action in kinds and a.gateway not in self.errors]

    def stop(self) -> None:
        units = {name: [envoy_unit(name), namespace_unit(name)] for name in self._of("remove", "replace")}
        self._systemctl("stop", units | {name: [envoy_unit(name)] for name in self._of("update")})

    def remove(self) -> None:
        removed = self._of("remove")
        options = ("--no-reload", "--quiet")
        self._systemctl("disable", {name: [envoy_unit(name)] for name in removed}, *options)
        removed = self._of("remove")
        if removed:
            # a unit that did not fail is unloaded by now, and nothing to reset
            gone = [unit(name) for name in removed for unit in (envoy_unit, namespace_unit)]
            self._run(["systemctl", "reset-failed", *gone])
        for name in removed:
            _forget(self._run, name)

    def write(self) -> None:
        for action in self._actions:
            if action.gateway in self.errors:
                continue
            try:
                _write_all(action.differences())
            except OSError as error:
                self.errors[action.gateway] = str(error)
        if self._of("remove", "replace"):
            # units that systemd has read have other drop-ins now; a new one it has not read yet
            self._run(["systemctl", "daemon-reload"])

    def start(self) -> None:
        kinds = ("create", "replace", "update", "start")
        units = {name: [envoy_unit(name)] for name in self._of(*kinds)}
        self._systemctl("enable", units, "--no-reload", "--quiet")
        self._systemctl("start", {name: [envoy_unit(name)] for name in self._of(*kinds)})

    def _systemctl(self, verb: str, units: dict[str, list[str]], *options: str) -> None:
        """Call systemctl for all; if that fails, for each gateway, to know which one it is."""
        command = ["systemctl", verb, *options]
        if not units or not self._run([*command, *(u for group in units.values() for u in group)])[0]:
            return
        for gateway, group in units.items():
            code, _out, err = self._run([*command, *group])
            if code:
                self.errors[gateway] = (
                    f"systemctl {verb} failed: {err.strip()}; see journalctl -u 'epic-*' on this host"
                )


def _units(run: Run) -> dict[str, set[str]]:
    """The units of instances: gateway to the templates that are active; a failed one adds none."""
    # not those that are only in systemd's memory, as removed ones are until its next reload
    states = "--state=active,activating,deactivating,failed"
    listing = ["systemctl", "list-units", states, "--plain", "--no-legend", "--no-pager"]
    code, out, err = run([*listing, "epic-envoy@*.service", "epic-netns@*.service"])
    if code:
        raise ApplyError(f"systemctl list-units failed: {err.strip()}")
    found: dict[str, set[str]] = {}
    for line in out.splitlines():
        unit, _load, active = line.split()[:3]
        template, _at, instance = unit.removesuffix(".service").partition("@")
        templates = found.setdefault(instance, set())
        if active == "active":
            templates.add(template)
    return found


def _forget(run: Run, gateway: str) -> None:
    """Remove what a stopped instance may have left; its units clean up themselves unless they were killed."""
    if Path(f"{NAMESPACES}/epic-{gateway}").exists():
        run(["ip", "netns", "delete", f"epic-{gateway}"])
    drop_ins = f"{UNITS}/{envoy_unit(gateway)}.d"
    for place in (f"{CONFIGURATION}/{gateway}", f"{RUNTIME}/{gateway}", drop_ins):
        shutil.rmtree(place, ignore_errors=True)


def _write_all(differences: list[tuple[str, str, str]]) -> None:
    for path, _before, after in differences:
        if after:
            _write(Path(path), after)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text, 0o644, (os.geteuid(), os.getegid()))


def _files(gateway: str) -> dict[str, str]:
    return {path: Path(path).read_text("utf-8") for path in paths(gateway) if Path(path).exists()}


def _names(directory: str, prefix: str, suffix: str) -> set[str]:
    """What stands between prefix and suffix; what has nothing there is the template's, not an instance's."""
    return {
        name[len(prefix) : len(name) - len(suffix)]
        for name in _entries(directory)
        if name.startswith(prefix) and name.endswith(suffix) and len(name) > len(prefix) + len(suffix)
    }


def _entries(directory: str) -> list[str]:
    place = Path(directory)
    return [path.name for path in place.iterdir()] if place.is_dir() else []
