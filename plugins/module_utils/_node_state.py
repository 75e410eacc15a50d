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


def apply(run: Run, actions: list[Action]) -> None:
    """Carry out the plan, with one call of systemctl for each kind of step, not for each gateway."""
    removed = [action.gateway for action in actions if action.action == "remove"]
    replaced = [action.gateway for action in actions if action.action == "replace"]
    updated = [action.gateway for action in actions if action.action == "update"]
    extended = [action for action in actions if action.action == "extend"]
    kept = {"remove", "extend"}
    started = [action.gateway for action in actions if action.changed and action.action not in kept]
    gone = [unit(name) for name in removed for unit in (envoy_unit, namespace_unit)]
    down = gone + [unit(name) for name in replaced for unit in (envoy_unit, namespace_unit)]
    _systemctl(run, "stop", down + [envoy_unit(name) for name in updated])
    _systemctl(run, "disable", [envoy_unit(name) for name in removed], "--no-reload", "--quiet")
    if removed:
        # a unit that did not fail is unloaded by now, and nothing to reset
        run(["systemctl", "reset-failed", *gone])
    for name in removed:
        _forget(run, name)
    for action in actions:
        if action not in extended:
            _write_all(action.differences())
    if removed or replaced:
        # units that systemd has read have other drop-ins now; a new one it has not read yet
        run(["systemctl", "daemon-reload"])
    units = [envoy_unit(name) for name in started]
    _systemctl(run, "enable", units, "--no-reload", "--quiet")
    _systemctl(run, "start", units)
    _extend(run, extended)


def _extend(run: Run, actions: list[Action]) -> None:
    """Let namespaces take up what is new in their environment; the description says that it was done."""
    descriptions = {paths(action.gateway)[0] for action in actions}
    differences = [difference for action in actions for difference in action.differences()]
    _write_all([d for d in differences if d[0] not in descriptions])
    _systemctl(run, "reload", [namespace_unit(action.gateway) for action in actions])
    _write_all([d for d in differences if d[0] in descriptions])


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


def _systemctl(run: Run, verb: str, units: list[str], *options: str) -> None:
    if not units:
        return
    code, _out, err = run(["systemctl", verb, *options, *units])
    if code:
        raise ApplyError(f"systemctl {verb} failed: {err.strip()}; see journalctl -u 'epic-*' on this host")


def _files(gateway: str) -> dict[str, str]:
    return {path: Path(path).read_text("utf-8") for path in paths(gateway) if Path(path).exists()}


def _names(directory: str, prefix: str, suffix: str) -> set[str]:
    return {
        name[len(prefix) : len(name) - len(suffix)]
        for name in _entries(directory)
        if name.startswith(prefix) and name.endswith(suffix)
    }


def _entries(directory: str) -> list[str]:
    place = Path(directory)
    return [path.name for path in place.iterdir()] if place.is_dir() else []
