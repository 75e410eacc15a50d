# SPDX-License-Identifier: Apache-2.0
"""One run on a node: from the wanted instances to what was done, or would be done, about each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible_collections.epic.gateway.plugins.module_utils._instances import (
    Instance,
    InstanceError,
    parse_all,
    plan,
)
from ansible_collections.epic.gateway.plugins.module_utils._node_state import ApplyError, Run, apply, find

ENVOYS = "/opt/envoy"

_TEXTS = (
    "gateway",
    "account",
    "node_id",
    "public_address",
    "inside_address",
    "inside_address6",
    "interface",
    "envoy_version",
)
INSTANCE_OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"type": "str", "required": True} for name in _TEXTS},
    "mtu": {"type": "int", "required": True},
    "concurrency": {"type": "int", "default": 1},
}
"""What is said of an instance, in the words of Ansible's argument specifications."""
SPEC: dict[str, dict[str, Any]] = {
    "instances": {"type": "list", "elements": "dict", "required": True, "options": INSTANCE_OPTIONS}
}


def run_instances(params: dict[str, Any], check: bool, run_command: Run) -> dict[str, Any]:
    """Run the instances of `params` and no others; with `check` only say what would be done.

    Returns `changed`, `instances` and `diff` as the module gateway_instances documents them, or `failed` and
    `msg`.
    """
    try:
        wanted = parse_all(params["instances"])
        missing = _missing_envoys(wanted)
        if missing:
            raise InstanceError(
                f"Envoy {', '.join(missing)} is not in {ENVOYS}; site.yml installs the pinned one"
            )
        actions = plan(wanted, find(run_command))
        if not check:
            apply(run_command, actions)
    except (InstanceError, ApplyError, OSError) as error:
        return {"failed": True, "msg": str(error)}
    return {
        "changed": any(action.changed for action in actions),
        "instances": [{"gateway": action.gateway, "action": action.action} for action in actions],
        "diff": [
            {"before_header": path, "after_header": path, "before": before, "after": after}
            for action in actions
            for path, before, after in action.differences()
        ],
    }


def _missing_envoys(wanted: dict[str, Instance]) -> list[str]:
    """The wanted versions of Envoy that this node does not have."""
    versions = {instance.envoy_version for instance in wanted.values()}
    return sorted(version for version in versions if not os.access(Path(ENVOYS, version, "envoy"), os.X_OK))
