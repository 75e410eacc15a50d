# SPDX-License-Identifier: Apache-2.0
"""A run on a node with several instances of which one cannot be: the others are made all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.epic.gateway.plugins.module_utils import _instance_run as instance_run
from ansible_collections.epic.gateway.plugins.module_utils import _instances as instances
from ansible_collections.epic.gateway.plugins.module_utils import _node_state as state

THERE, MISSING = "1.40.0", "1.99.0"


class Host:
    """Where every command succeeds; knows which of them changed something."""

    def __init__(self, units: str = "") -> None:
        self.units = units
        self.commands: list[str] = []

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        if command[1] == "list-units":
            return 0, self.units, ""
        self.commands.append(" ".join(command))
        return 0, "", ""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host's directories, and an Envoy of one version."""
    for name in ("CONFIGURATION", "RUNTIME", "NAMESPACES", "WANTS", "UNITS"):
        (tmp_path / name.lower()).mkdir()
        for module in (state, instances):
            monkeypatch.setattr(module, name, str(tmp_path / name.lower()), raising=False)
    envoy = tmp_path / "envoys" / THERE / "envoy"
    envoy.parent.mkdir(parents=True)
    envoy.touch(mode=0o755)
    monkeypatch.setattr(instance_run, "ENVOYS", str(tmp_path / "envoys"))
    return tmp_path


def wanted(name: str, number: int, envoy: str) -> dict[str, Any]:
    return {
        "gateway": f"shop.{name}",
        "account": "shop",
        "node_id": f"epic-shop.{name}",
        "public_address": f"203.0.113.{number}",
        "inside_address": f"100.64.0.{number}",
        "inside_address6": f"fd65:7069:6300::6440:{number}",
        "interface": f"epg64400000000{number}",
        "mtu": 1452,
        "envoy_version": envoy,
        "concurrency": 1,
        "may_restart": True,
    }


def run(
    host: Host, *items: dict[str, Any], check: bool = False, keep: tuple[str, ...] = ()
) -> dict[str, Any]:
    return instance_run.run_instances({"instances": list(items), "keep": list(keep)}, check, host)


def test_a_gateway_of_an_envoy_that_the_node_lacks_fails_alone(root: Path) -> None:
    host = Host()
    result = run(host, wanted("bad", 1, MISSING), wanted("good", 2, THERE))
    assert "failed" not in result
    bad, good = result["instances"]
    assert (bad["gateway"], bad["action"]) == ("shop.bad", "none")
    assert bad["error"] == f"Envoy {MISSING} is not in {root}/envoys; site.yml installs the pinned one"
    assert good == {"gateway": "shop.good", "action": "create", "error": ""}
    assert result["envoy_versions"] == [THERE]
    assert host.commands == [
        "systemctl enable --no-reload --quiet epic-envoy@shop.good.service",
        "systemctl start epic-envoy@shop.good.service",
    ]
    assert (root / "configuration/shop.good/bootstrap.yaml").exists()
    assert not (root / "configuration/shop.bad").exists()


def test_one_that_runs_is_left_as_it_is_when_it_is_to_have_an_envoy_that_the_node_lacks(root: Path) -> None:
    run(Host(), wanted("web", 1, THERE))
    before = {path: path.read_text() for path in (root / "configuration/shop.web").iterdir()}
    host = Host(
        "epic-envoy@shop.web.service loaded active running EPIC gateway\n"
        "epic-netns@shop.web.service loaded active exited EPIC gateway\n"
    )
    result = run(host, wanted("web", 1, MISSING))
    (web,) = result["instances"]
    assert (web["action"], result["changed"]) == ("none", False)
    assert MISSING in web["error"]
    assert host.commands == []
    assert {path: path.read_text() for path in (root / "configuration/shop.web").iterdir()} == before


def test_a_gateway_that_cannot_be_parsed_fails_alone(root: Path) -> None:
    result = run(Host(), wanted("bad", 1, THERE) | {"mtu": 1}, wanted("good", 2, THERE))
    assert [bool(item["error"]) for item in result["instances"]] == [True, False]
    assert [item["action"] for item in result["instances"]] == ["none", "create"]


def test_a_check_says_the_same_and_makes_nothing(root: Path) -> None:
    host = Host()
    result = run(host, wanted("bad", 1, MISSING), wanted("good", 2, THERE), check=True)
    assert [item["action"] for item in result["instances"]] == ["none", "create"]
    assert host.commands == []
    assert list((root / "configuration").iterdir()) == []


def test_what_there_is_of_a_gateway_that_is_to_be_kept_stays_as_it_is(root: Path) -> None:
    run(Host(), wanted("web", 1, THERE), wanted("other", 2, THERE))
    before = {path: path.read_text() for path in (root / "configuration/shop.web").iterdir()}
    host = Host()
    result = run(host, keep=("shop.web", "shop.elsewhere"))
    assert result["instances"] == [{"gateway": "shop.other", "action": "remove", "error": ""}]
    assert not [command for command in host.commands if "web" in command]
    assert {path: path.read_text() for path in (root / "configuration/shop.web").iterdir()} == before
    assert run(host, wanted("web", 1, THERE) | {"mtu": 1400}, keep=("shop.web",))["instances"] == []
    assert run(Host())["instances"] == [{"gateway": "shop.web", "action": "remove", "error": ""}]
