# SPDX-License-Identifier: Apache-2.0
"""What `upgrade` brings up to date is what `site` builds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

PLAYBOOKS = Path(__file__).parents[3] / "playbooks"


def roles_of(playbook: str, group: str) -> list[str]:
    """The roles that hosts of the group get by plays and by loops of a block, in their order."""
    plays: list[dict[str, Any]] = yaml.safe_load((PLAYBOOKS / f"{playbook}.yml").read_text())
    found: list[str] = []
    for play in plays:
        if group in play["hosts"].split(":"):
            found += [role["role"].removeprefix("epic.gateway.") for role in play.get("roles", ())]
            found += [
                name
                for task in play.get("tasks", ())
                for t in task.get("block", ())
                for name in t.get("loop", ())
            ]
    return found


@pytest.mark.parametrize("group", ["epic_control", "epic_nodes", "linux_clients"])
def test_an_upgrade_runs_every_role_of_a_host(group: str) -> None:
    assert roles_of("upgrade", group) == roles_of("site", group)
