# SPDX-License-Identifier: Apache-2.0
"""What variables of roles are worth, by Ansible's own templating."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLES = Path(__file__).parents[3] / "roles"


def trusted(value: Any) -> Any:
    """With every text in it a template, as those of a role's files are."""
    match value:
        case dict():
            return {name: trusted(item) for name, item in value.items()}
        case list():
            return [trusted(item) for item in value]
        case str():
            return trust_as_template(value)
        case _:
            return value


def role_value(roles: list[str], name: str, **variables: Any) -> Any:
    """A variable of the last role, beside the defaults of all and what the site says."""
    found: dict[str, Any] = {}
    for role in roles:
        for kind in ("defaults", "vars"):
            file = ROLES / role / kind / "main.yml"
            found |= trusted(yaml.safe_load(file.read_text())) if file.exists() else {}
    return Templar(DataLoader(), variables=found | variables).template(
        trust_as_template("{{ " + name + " }}")
    )
