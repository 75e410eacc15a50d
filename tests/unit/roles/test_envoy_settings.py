# SPDX-License-Identifier: Apache-2.0
"""What the role gives all Envoys of a node, as Envoy itself takes it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from role_values import role_value

ENVOY = Path(sys.executable).with_name("envoy")
BOOTSTRAP = {
    "node": {"id": "epic-shop.web", "cluster": "shop"},
    "overload_manager": {
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections"
                    ".v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": 1000,
                },
            }
        ]
    },
}


def settings(**variables: Any) -> dict[str, Any]:
    """/etc/epic/envoy.yaml."""
    found: dict[str, Any] = role_value(["gateway_node"], "_gateway_node_envoy", **variables)
    return found


@pytest.mark.skipif(not ENVOY.exists(), reason="needs Envoy")
def test_envoy_takes_it_beside_a_bootstrap(tmp_path: Path) -> None:
    bootstrap = tmp_path / "bootstrap.json"
    bootstrap.write_text(json.dumps(BOOTSTRAP), encoding="utf-8")
    node = json.dumps(settings())
    command = [ENVOY, "--mode", "validate", "--config-path", bootstrap, "--config-yaml", node]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("memory", "most"), [("1G", 1 << 30), ("512M", 512 << 20)])
def test_its_heap_ends_before_the_units_memory(memory: str, most: int) -> None:
    (monitor,) = settings(gateway_node_envoy_memory=memory)["overload_manager"]["resource_monitors"]
    heap = int(monitor["typed_config"]["max_heap_size_bytes"])
    assert 0.8 * most < heap < most


def test_requests_are_refused_before_connections() -> None:
    actions = settings()["overload_manager"]["actions"]
    order = sorted(actions, key=lambda action: action["triggers"][0]["threshold"]["value"])
    assert [action["name"].removeprefix("envoy.overload_actions.") for action in order] == [
        "shrink_heap",
        "disable_http_keepalive",
        "stop_accepting_requests",
        "stop_accepting_connections",
    ]
