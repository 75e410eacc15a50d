# SPDX-License-Identifier: Apache-2.0
"""What the role gives the agent, as the agent reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from test_envoy_settings import ROLE, trusted

from epic.agent.settings import GatewaySettings, load

HOST = {
    "inventory_hostname": "epic1",
    "cluster_control_address": "192.0.2.10",
    "cluster_ads_port": 18000,
    "cluster_metrics_address": "127.0.0.1",
    "cluster_metrics_port": 9101,
    "gateway_node_underlay_interface": "ens192",
    "gateway_node_underlay_address": "192.0.2.11",
}


def settings(directory: Path, **variables: Any) -> GatewaySettings:
    """/etc/epic/agent.yaml."""
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    values = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    templar = Templar(DataLoader(), variables=trusted(defaults | values) | HOST | variables)
    path = directory / "agent.yaml"
    # JSON is YAML, and knows what templates make of text.
    path.write_text(json.dumps(templar.template(trust_as_template("{{ _gateway_node_agent }}"))))
    found = load(path)
    assert isinstance(found, GatewaySettings)
    return found


def test_a_node_takes_part_in_second_chance(tmp_path: Path) -> None:
    found = settings(tmp_path)
    assert found.second_chance
    assert (found.underlay.names, str(found.underlay.address)) == (("ens192",), "192.0.2.11")


@pytest.mark.parametrize(
    ("variables", "socket"),
    [
        ({"router_neighbors": [{"name": "r", "address": "192.0.2.1", "as": 1}]}, "/run/bird/bird.ctl"),
        ({"router_neighbors": []}, None),
        ({}, None),
        ({"gateway_node_bird": "/run/other.ctl"}, "/run/other.ctl"),
        ({"router_neighbors": [{"name": "r"}], "gateway_node_bird": ""}, None),
    ],
)
def test_the_agent_looks_at_the_bird_of_a_node_that_has_neighbours(
    tmp_path: Path, variables: dict[str, Any], socket: str | None
) -> None:
    assert settings(tmp_path, **variables).bird == (Path(socket) if socket else None)


@pytest.mark.parametrize("said", [False, "no", "false"])
def test_a_node_can_be_left_out_of_it(tmp_path: Path, said: object) -> None:
    assert not settings(tmp_path, gateway_node_second_chance=said).second_chance
