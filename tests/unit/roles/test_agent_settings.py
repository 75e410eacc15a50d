# SPDX-License-Identifier: Apache-2.0
"""What the role gives the agent, as the agent reads it."""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from role_values import role_value

from epic.agent.settings import GatewaySettings, MetricsSettings, Settings, WorkloadSettings, load

CLUSTER = {
    "cluster_control_address": "192.0.2.10",
    "cluster_ads_port": 18000,
    "cluster_metrics_address": "127.0.0.1",
    "cluster_metrics_port": 9101,
}
HOST = CLUSTER | {
    "inventory_hostname": "epic1",
    "gateway_node_underlay_interface": "ens192",
    "gateway_node_underlay_address": "192.0.2.11",
}
CLIENT = CLUSTER | {"inventory_hostname": "node1", "linux_controller_underlay_interface": "ens192"}


def read(directory: Path, said: object) -> Settings:
    """/etc/epic/agent.yaml as the agent reads it."""
    path = directory / "agent.yaml"
    # JSON is YAML, and knows what templates make of text.
    path.write_text(json.dumps(said))
    return load(path)


def settings(directory: Path, **variables: Any) -> GatewaySettings:
    found = read(directory, role_value(["gateway_node"], "_gateway_node_agent", **HOST | variables))
    assert isinstance(found, GatewaySettings)
    return found


def client_settings(directory: Path, **variables: Any) -> WorkloadSettings:
    found = read(directory, role_value(["linux_controller"], "_linux_controller_agent", **CLIENT | variables))
    assert isinstance(found, WorkloadSettings)
    return found


def test_a_node_takes_part_in_second_chance(tmp_path: Path) -> None:
    found = settings(tmp_path)
    assert found.second_chance
    assert (found.underlay.names, str(found.underlay.address)) == (("ens192",), "192.0.2.11")
    assert found.underlay.receive == "tc"
    assert found.control.address == "192.0.2.10:18000"


def test_a_node_is_given_what_its_site_says(tmp_path: Path) -> None:
    """Values from a command line are text."""
    found = settings(
        tmp_path,
        gateway_node_underlay_interfaces=["ens192", "ens224"],
        gateway_node_receive="xdp",
        cluster_control_address="control.example.net",
        cluster_ads_port="18001",
        cluster_metrics_address="192.0.2.11",
        cluster_metrics_port="0",
    )
    assert found.underlay.names == ("ens192", "ens224")
    assert found.underlay.receive == "xdp"
    assert found.control.address == "control.example.net:18001"
    assert found.metrics == MetricsSettings(address=IPv4Address("192.0.2.11"), port=0)


def test_a_client_is_given_the_agents_own_defaults(tmp_path: Path) -> None:
    found = client_settings(tmp_path)
    own = WorkloadSettings.model_validate(
        {
            "role": "workload",
            "node_name": "node1",
            "cluster": "linux",
            "underlay": {"interface": "ens192"},
            "manifests": "/etc/epic/manifests",
            "ca": "/etc/epic/pki/ca.crt",
        }
    )
    assert found == own


@pytest.mark.parametrize("yes", [True, "yes"])
def test_a_client_is_given_what_its_site_says(tmp_path: Path, yes: object) -> None:
    found = client_settings(
        tmp_path,
        linux_controller_underlay_interfaces=["ens192", "ens224"],
        linux_controller_underlay_address="fd00::11",
        linux_controller_receive="xdp",
        linux_controller_lanes="4",
        linux_controller_spread=yes,
        linux_controller_checksum=yes,
        linux_controller_delivery="pods",
        linux_controller_cluster="west",
        linux_controller_manifests="/srv/manifests",
        linux_controller_hold_removals_from="0",
    )
    underlay = found.underlay
    assert (underlay.names, str(underlay.address)) == (("ens192", "ens224"), "fd00::11")
    assert (underlay.receive, underlay.lanes, underlay.delivery) == ("xdp", 4, "pods")
    assert underlay.spread
    assert underlay.checksum
    assert (found.cluster, found.manifests, found.hold_removals_from) == ("west", Path("/srv/manifests"), 0)


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
