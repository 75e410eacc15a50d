# SPDX-License-Identifier: Apache-2.0
"""Who is answered by the host's own services."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from firewall_node import (
    NODE,
    NODE6,
    OUTSIDE,
    OUTSIDE6,
    SSH,
    STRANGER,
    STRANGER6,
    WAIT,
    FirewallNode,
    arrives,
    connect,
    udp,
    unanswered,
)
from firewall_rules import firewall_rules

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

BGP, BFD = 179, 3784


def service(name: str, port: int, *networks: str, **ports: list[int]) -> dict[str, Any]:
    return {"name": name, "ports": {"tcp": [port], **ports}, "networks": list(networks)}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FirewallNode]:
    """SSH answers one address of each family, given twice over; BGP one neighbour; metrics nobody."""
    services = [
        service("ssh", SSH, f"{OUTSIDE}/32", "172.30.11.0/28", "fd00:11::/126"),
        service("bgp", BGP, OUTSIDE, udp=[BFD]),
        service("metrics", 9101),
    ]
    with FirewallNode(tmp_path) as made:
        made.load(firewall_rules(services=services))
        for port in (BGP, 9101, 8080):
            made.listen(made.node, "0.0.0.0", port)  # noqa: S104
        yield made


@pytest.mark.parametrize(
    ("source", "target"),
    [(OUTSIDE, NODE), (OUTSIDE6, NODE6), (NODE, NODE), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")],
)
def test_a_configured_network_and_the_host_itself_are_answered(
    node: FirewallNode, source: str, target: str
) -> None:
    namespace = node.outside if source in (OUTSIDE, OUTSIDE6) else node.node
    assert connect(namespace, (source, 0), (target, SSH)) == "connected"


@pytest.mark.parametrize(("source", "target"), [(STRANGER, NODE), (STRANGER6, NODE6)])
def test_nobody_else_is(node: FirewallNode, source: str, target: str) -> None:
    assert unanswered(node.outside, (source, 0), (target, SSH))
    assert "counter packets 0" not in node.node.run("nft list chain inet epic_management ssh")


def test_bgp_and_bfd_are_for_neighbours(node: FirewallNode) -> None:
    assert connect(node.outside, (OUTSIDE, 0), (NODE, BGP)) == "connected"
    assert unanswered(node.outside, (STRANGER, 0), (NODE, BGP))
    with (
        udp(node.node, (NODE, BFD)) as bird,
        udp(node.outside, (OUTSIDE, 50000)) as neighbour,
        udp(node.outside, (STRANGER, 50000)) as stranger,
    ):
        assert arrives(neighbour, (NODE, BFD), bird)
        assert not arrives(stranger, (NODE, BFD), bird, WAIT)


def test_a_service_without_networks_answers_the_host_alone(node: FirewallNode) -> None:
    assert unanswered(node.outside, (OUTSIDE, 0), (NODE, 9101))
    assert connect(node.node, ("127.0.0.1", 0), ("127.0.0.1", 9101)) == "connected"


def test_other_ports_of_the_host_are_not_judged(node: FirewallNode) -> None:
    assert connect(node.outside, (STRANGER, 0), (NODE, 8080)) == "connected"


def test_a_load_replaces_the_networks(node: FirewallNode) -> None:
    node.load(firewall_rules(services=[service("ssh", SSH, STRANGER)]))
    assert connect(node.outside, (STRANGER, 0), (NODE, SSH)) == "connected"
    assert unanswered(node.outside, (OUTSIDE, 0), (NODE, SSH))
    assert connect(node.outside, (STRANGER, 0), (NODE, BGP)) == "connected"
