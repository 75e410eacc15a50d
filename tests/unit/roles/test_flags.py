# SPDX-License-Identifier: Apache-2.0
"""A flag that comes from the command line (`-e maintenance_reboot=true`) is a text to Ansible.

A condition that is a text fails, and the text `false` is true to a template: roles make booleans of flags.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CONDITIONS = {"when", "that", "until", "failed_when", "changed_when"}
FLAGS = sorted(
    name
    for path in (ROOT / "roles").glob("*/meta/argument_specs.yml")
    for name, option in (
        yaml.safe_load(path.read_text())["argument_specs"]["main"].get("options") or {}
    ).items()
    if option.get("type") == "bool"
)


def conditions(value: Any, key: str = "") -> Iterator[str]:
    """What is decided by, in tasks: the texts of conditions and the expressions that choose."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from conditions(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from conditions(inner, key)
    elif isinstance(value, str):
        yield from (
            [value] if key in CONDITIONS else re.findall(r"{{.*?\bif\b.*?}}|{{.*?ternary.*?}}", value, re.S)
        )


def decisions() -> Iterator[str]:
    """All of the roles and playbooks."""
    places = ("roles/*/tasks/*.yml", "roles/*/handlers/*.yml", "roles/*/vars/*.yml", "playbooks/*.yml")
    for path in (found for place in places for found in ROOT.glob(place)):
        yield from conditions(yaml.safe_load(path.read_text()))
    for path in ROOT.glob("roles/*/templates/*.j2"):
        yield from re.findall(r"{%-? *(?:el)?if .*?%}|{{.*?\bif\b.*?}}", path.read_text())


def test_there_are_flags_and_decisions() -> None:
    assert {"maintenance_reboot", "decommission_force", "router_bfd"} <= set(FLAGS)
    assert len(list(decisions())) > 50


@pytest.mark.parametrize("flag", FLAGS)
def test_what_is_decided_by_a_flag_takes_its_text_too(flag: str) -> None:
    by_flag = [text for text in decisions() if re.search(rf"\b{flag}\b", text)]
    assert [text for text in by_flag if not re.search(rf"\b{flag} *\| *bool\b", text)] == []
