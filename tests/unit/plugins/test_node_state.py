# SPDX-License-Identifier: Apache-2.0
"""Finding and changing instances on a host: which commands are run, what is left on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.epic.gateway.plugins.module_utils import _instances as instances
from ansible_collections.epic.gateway.plugins.module_utils import _node_state as state
from ansible_collections.epic.gateway.plugins.module_utils._instances import Action, Found


class Host:
    """Answers commands as systemctl would, and remembers them."""

    def __init__(self, units: str = "", failing: str = "", unit: str = "") -> None:
        self.units = units
        self.failing = failing
        self.unit = unit
        self.commands: list[str] = []

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        if command[1] == "list-units":
            return 0, self.units, ""
        self.commands.append(" ".join(command))
        failed = command[1] == self.failing and any(f"@{self.unit}." in name for name in command)
        return (1, "", "Unit is masked.") if failed else (0, "", "")


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CONFIGURATION", "RUNTIME", "NAMESPACES", "WANTS", "UNITS"):
        (tmp_path / name.lower()).mkdir()
        for module in (state, instances):
            monkeypatch.setattr(module, name, str(tmp_path / name.lower()), raising=False)
    return tmp_path


def action(gateway: str, kind: str) -> Action:
    after = {} if kind == "remove" else {instances.paths(gateway)[0]: "{}\n"}
    return Action(gateway, kind, {}, after)


def test_everything_under_a_gateways_name_is_found(root: Path) -> None:
    (root / "configuration/root.a").mkdir()
    (root / "configuration/root.a/instance.json").write_text("{}\n")
    (root / "wants/epic-envoy@root.a.service").touch()
    (root / "wants/ssh.service").touch()
    (root / "namespaces/epic-root.b").touch()
    host = Host(
        "epic-envoy@root.a.service loaded active running EPIC gateway\n"
        "epic-netns@root.a.service loaded active exited EPIC gateway\n"
        "epic-envoy@root.c.service loaded failed failed EPIC gateway\n"
    )
    assert state.find(host) == {
        "root.a": Found(
            {str(root / "configuration/root.a/instance.json"): "{}\n"}, running=True, enabled=True
        ),
        "root.b": Found({}, namespace=True),
        "root.c": Found({}),
    }


def test_new_instances_are_started_together(root: Path) -> None:
    host = Host()
    same = Action("root.c", "none", {"x": "{}"}, {"x": "{}"})
    state.apply(host, [action("root.a", "create"), action("root.b", "create"), same])
    units = "epic-envoy@root.a.service epic-envoy@root.b.service"
    assert host.commands == [f"systemctl enable --no-reload --quiet {units}", f"systemctl start {units}"]
    assert (root / "configuration/root.a/instance.json").read_text() == "{}\n"
    assert not (root / "configuration/root.c").exists()


def test_an_update_keeps_the_namespace() -> None:
    host = Host()
    state.apply(host, [action("root.a", "update")])
    assert host.commands[0] == "systemctl stop epic-envoy@root.a.service"


def test_a_replacement_stops_the_namespace_too() -> None:
    host = Host()
    state.apply(host, [action("root.a", "replace")])
    assert host.commands[0] == "systemctl stop epic-envoy@root.a.service epic-netns@root.a.service"


def test_what_all_instances_share_is_no_instance(root: Path) -> None:
    (root / "units/epic-envoy@.service.d").mkdir()
    assert state.find(Host()) == {}


def test_a_removal_leaves_nothing(root: Path) -> None:
    for place in ("configuration", "runtime"):
        (root / place / "root.a").mkdir()
    (root / "units/epic-envoy@root.a.service.d").mkdir()
    (root / "namespaces/epic-root.a").touch()
    host = Host()
    state.apply(host, [action("root.a", "remove")])
    both = "epic-envoy@root.a.service epic-netns@root.a.service"
    assert host.commands == [
        f"systemctl stop {both}",
        "systemctl disable --no-reload --quiet epic-envoy@root.a.service",
        f"systemctl reset-failed {both}",
        "ip netns delete epic-root.a",
        "systemctl daemon-reload",
    ]
    assert [path.name for path in root.glob("*/*") if path.parent.name != "namespaces"] == []


def test_nothing_to_do_runs_nothing() -> None:
    host = Host()
    state.apply(host, [action("root.a", "none")])
    assert host.commands == []


def test_a_gateway_that_systemd_refuses_fails_alone(root: Path) -> None:
    host = Host(failing="start", unit="root.a")
    errors = state.apply(host, [action("root.a", "create"), action("root.b", "create")])
    assert errors == {
        "root.a": "systemctl start failed: Unit is masked.; see journalctl -u 'epic-*' on this host"
    }
    assert host.commands[-1] == "systemctl start epic-envoy@root.b.service"


def test_an_instance_that_cannot_be_stopped_keeps_its_files(root: Path) -> None:
    (root / "configuration/root.a").mkdir()
    host = Host(failing="stop", unit="root.a")
    errors = state.apply(host, [action("root.a", "remove"), action("root.b", "create")])
    assert list(errors) == ["root.a"]
    assert (root / "configuration/root.a").exists()
    assert host.commands[-1] == "systemctl start epic-envoy@root.b.service"
