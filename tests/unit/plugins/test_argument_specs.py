# SPDX-License-Identifier: Apache-2.0
"""The roles' documented defaults are their defaults, and every variable of a role is documented."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).parents[3] / "roles"
NAMES = [
    "base",
    "cluster",
    "control_plane",
    "decommission",
    "firewall",
    "gateway_node",
    "linux_controller",
    "maintenance",
    "router",
]


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text()) or {}


def options_of(role: str) -> dict[str, Any]:
    return load(ROLES / role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]


@pytest.mark.parametrize("role", NAMES)
def test_defaults_and_documentation_name_the_same_variables(role: str) -> None:
    documented = {name for name, option in options_of(role).items() if "default" in option}
    assert documented == set(load(ROLES / role / "defaults/main.yml"))


def test_every_entry_point_that_something_uses_is_documented() -> None:
    files = [*ROLES.rglob("tasks/*.yml"), *(ROLES.parent / "playbooks").glob("*.yml")]
    pattern = re.compile(r"name: epic\.gateway\.(\w+)\n\s+tasks_from: (\w+)")
    used = {match for path in files for match in pattern.findall(path.read_text())}
    assert ("base", "envoy") in used
    for role, entry_point in used:
        assert entry_point in load(ROLES / role / "meta/argument_specs.yml")["argument_specs"]


@pytest.mark.parametrize("role", NAMES)
def test_plain_defaults_are_documented_as_they_are(role: str) -> None:
    documented = {name: option.get("default") for name, option in options_of(role).items()}
    plain = {
        name: value
        for name, value in load(ROLES / role / "defaults/main.yml").items()
        if not (isinstance(value, str) and "{{" in value)
    }
    assert {name: documented[name] for name in plain} == plain


@pytest.mark.parametrize("role", NAMES)
def test_variables_carry_the_roles_name_and_a_description(role: str) -> None:
    for name, option in options_of(role).items():
        assert name.startswith(f"{role}_")
        assert option["description"]
        assert option.get("required", False) or "default" in option


@pytest.mark.parametrize("role", NAMES)
def test_the_example_inventory_shows_every_variable(role: str) -> None:
    files = (ROLES.parent / "inventories/example").rglob("*.yml")
    shown = {line.strip().partition(":")[0] for file in files for line in file.read_text().splitlines()}
    assert options_of(role).keys() <= shown


def test_the_lab_offers_the_packages_of_every_role() -> None:
    with_packages = {
        path.parents[1].name
        for path in ROLES.glob("*/defaults/main.yml")
        if any(name.endswith("_packages") for name in load(path))
    }
    # what operators have upgraded or removed is no need of the role
    with_packages -= {"lab", "decommission", "maintenance"}
    assert with_packages == set(load(ROLES / "lab/vars/main.yml")["_lab_roles"])
