# SPDX-License-Identifier: Apache-2.0
"""One run on a node: from the wanted instances to what was done, or would be done, about each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible_collections.epic.gateway.plugins.module_utils._instances import (
    Action,
    Instance,
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
    "alt_address": {"type": "str", "default": ""},
    "mtu": {"type": "int", "required": True},
    "concurrency": {"type": "int", "default": 1},
    "may_restart": {"type": "bool", "default": True},
}
"""What is said of an instance, in the words of Ansible's argument specifications."""
SPEC: dict[str, dict[str, Any]] = {
    "instances": {"type": "list", "elements": "dict", "required": True, "options": INSTANCE_OPTIONS},
    "keep": {"type": "list", "elements": "str", "default": []},
}


def run_instances(params: dict[str, Any], check: bool, run_command: Run) -> dict[str, Any]:
    """Run the instances of `params` and no others; with `check` only say what would be done.

    Of a gateway in `keep` nothing is known: whatever there is of it is left as it is.

    Returns `changed`, `instances`, `envoy_versions` and `diff` as the module gateway_instances documents
    them, or `failed` and `msg`. What is wrong with one instance is said of that one, which is left as it is.
    """
    kept = set(params["keep"])
    instances = [item for item in params["instances"] if item["gateway"] not in kept]
    wanted, errors = parse_all(instances)
    errors |= _missing_envoys(wanted)
    untouched = {item["gateway"] for item in instances if not item["may_restart"]}
    try:
        found = find(run_command)
    except (ApplyError, OSError) as error:
        return {"failed": True, "msg": str(error)}
    good = {name: instance for name, instance in wanted.items() if name not in errors}
    left = errors.keys() | kept
    actions = plan(good, {name: state for name, state in found.items() if name not in left}, untouched)
    if not check:
        errors |= apply(run_command, actions)
    return {
        "changed": any(action.changed and action.gateway not in errors for action in actions),
        "instances": _report(actions, errors),
        "envoy_versions": _envoys(),
        "diff": [
            {"before_header": path, "after_header": path, "before": before, "after": after}
            for action in actions
            for path, before, after in action.differences()
        ],
    }


def _report(actions: list[Action], errors: dict[str, str]) -> list[dict[str, str]]:
    done = {action.gateway: action.action for action in actions} | dict.fromkeys(errors, "none")
    return [
        {"gateway": gateway, "action": action, "error": errors.get(gateway, "")}
        for gateway, action in sorted(done.items())
    ]


def _envoys() -> list[str]:
    """The versions of Envoy that this node has."""
    return sorted(path.parent.name for path in Path(ENVOYS).glob("*/envoy") if os.access(path, os.X_OK))


def _missing_envoys(wanted: dict[str, Instance]) -> dict[str, str]:
    """What is wrong with instances of an Envoy that this node does not have."""
    known = set(_envoys())
    return {
        gateway: f"Envoy {instance.envoy_version} is not in {ENVOYS}; site.yml installs the pinned one"
        for gateway, instance in wanted.items()
        if instance.envoy_version not in known
    }
