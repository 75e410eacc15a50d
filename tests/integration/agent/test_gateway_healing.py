# SPDX-License-Identifier: Apache-2.0
"""An EPIC node mends what others break, within 2 s, and is not announced while it could not serve.

- Filters, links, routes, routing rules, firewall: taken away one after the other, they are back soon.
- Without firewall, filters or interface the gateway is withdrawn until it can serve again.
- An address that stands for another gateway, or as another's route, is not taken for announced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from agent_control import INSIDE, INTERFACE, PUBLIC, TUNNEL_ID, Gateway, snapshot
from agent_node import Node, eventually, plane

from epic.ads.snapshot import TUNNEL, versioned
from epic.bpf.tables.tunnel_table import MAX_TUNNELS
from epic.proto import epic_pb2

pytestmark = pytest.mark.root
BACKEND = "192.168.50.11"
HEALED, RULES_BACK = 2.0, 1.0


@pytest.fixture
async def serving(node: Node) -> Node:
    """A node whose gateway is announced."""
    node.control.publish(snapshot(BACKEND))
    node.start_agent()
    node.add_instance()
    node.start_envoy()
    await eventually(node.is_announced, 60, "the announcement")
    return node


def has_filter(node: Node, interface: str, hook: str = "ingress") -> bool:
    return "epic_" in node.node.run(f"tc filter show dev {interface} {hook}")


def answers(node: Node) -> bool:
    return node.is_announced() and node.get() == "hi\n"


def delivers(node: Node) -> bool:
    table = node.node.run("ip route show table 200")
    return f"{PUBLIC} dev {INTERFACE}" in table and f"{INSIDE} dev {INTERFACE}" in table


@pytest.mark.parametrize(
    ("commands", "whole"),
    [
        pytest.param(["tc qdisc del dev up0 clsact"], lambda n: has_filter(n, "up0"), id="underlay"),
        pytest.param(["tc filter del dev up0 ingress"], lambda n: has_filter(n, "up0"), id="its filter"),
        pytest.param(
            ["tc filter del dev up0 egress"], lambda n: has_filter(n, "up0", "egress"), id="its guard"
        ),
        pytest.param(
            [f"tc qdisc del dev {INTERFACE} clsact"], lambda n: has_filter(n, INTERFACE), id="instance"
        ),
        pytest.param(
            [f"ip link set {INTERFACE} down", f"ip link set {INTERFACE} up"],
            delivers,
            id="link of the instance",
        ),
        pytest.param(
            ["ip link set up0 down", "ip link set up0 up"], lambda n: has_filter(n, "up0"), id="link"
        ),
        pytest.param(["ip route flush table 200"], delivers, id="delivery"),
        pytest.param(["ip route flush proto 50"], Node.is_announced, id="flag route"),
        pytest.param(["ip rule del pref 100"], lambda n: "lookup 200" in n.node.run("ip rule"), id="rule"),
        pytest.param(["ip rule flush"], lambda n: "lookup main" in n.node.run("ip rule"), id="all rules"),
        pytest.param(["nft flush ruleset"], lambda n: n.has_port(80), id="ruleset"),
        pytest.param(["nft delete table inet epic"], lambda n: n.has_port(80), id="table"),
        pytest.param(["nft flush set inet epic gateway_ports"], lambda n: n.has_port(80), id="ports"),
        pytest.param(
            ["nft flush chain inet epic forward"],
            lambda n: "ip saddr" in n.node.run("nft list chain inet epic forward"),
            id="chain",
        ),
    ],
)
async def test_what_others_break_is_mended_soon(
    serving: Node, commands: list[str], whole: Callable[[Node], bool]
) -> None:
    serving.node.run(*commands)
    within = RULES_BACK if commands[0].startswith("nft") else HEALED
    await eventually(lambda: whole(serving), within, "the repair")
    await eventually(lambda: answers(serving), HEALED, "an answer")


async def test_a_gateway_works_only_behind_the_firewall(node: Node) -> None:
    node.node.run("nft delete table inet epic")
    node.hide_firewall()
    node.control.publish(snapshot(BACKEND))
    node.start_agent()
    node.add_instance()
    node.start_envoy()
    report = await node.control.report(lambda r: r.instances and r.instances[0].serving_revision, 15)
    assert not report.instances[0].announced
    await asyncio.sleep(1)
    assert not node.is_announced()
    node.load_firewall()
    await eventually(node.is_announced, HEALED, "the announcement")
    assert node.has_port(80)


async def test_a_gateway_is_withdrawn_when_the_firewall_is_gone_for_good(serving: Node) -> None:
    serving.hide_firewall()
    serving.node.run("nft flush ruleset")
    await eventually(lambda: not serving.is_announced(), 1, "the withdrawal")
    report = await serving.control.report(lambda r: r.problems)
    assert "firewall" in report.problems[0]
    serving.load_firewall()
    await eventually(lambda: answers(serving), HEALED, "an answer")


@pytest.mark.parametrize("interface", [INTERFACE, "up0"])
async def test_a_gateway_is_withdrawn_while_an_interface_is_down(serving: Node, interface: str) -> None:
    serving.node.run(f"ip link set {interface} down")
    await eventually(lambda: not serving.is_announced(), 1, "the withdrawal")
    serving.node.run(f"ip link set {interface} up")
    await eventually(lambda: answers(serving), HEALED, "an answer")


async def test_tunnels_for_which_the_node_has_no_room_are_said_and_set_when_there_is_some(
    serving: Node,
) -> None:
    content = snapshot(BACKEND)
    first = epic_pb2.Tunnel.FromString(content[TUNNEL][str(TUNNEL_ID)].body.value)
    many = dict(content[TUNNEL])
    for id_ in range(TUNNEL_ID + 1, TUNNEL_ID + MAX_TUNNELS + 100):
        first.id = id_
        many[str(id_)] = versioned(first)
    serving.control.publish({**content, TUNNEL: many})
    report = await serving.control.report(lambda r: r.problems, 60)
    assert "and 99 more like it: there are 16384 tunnels on this node already" in report.problems[0]
    assert report.instances[0].kernel_error.startswith("its tunnels cannot be set: there are 16384 tunnels")
    assert len(report.problems) == 1
    # Others' go, and what waited is set without a word from anybody.
    kept = {id_: many[id_] for id_ in [str(TUNNEL_ID), *list(many)[-99:]]}
    serving.control.publish({**content, TUNNEL: kept})
    report = await serving.control.report(lambda r: len(r.tunnels) == 100, 60)
    report = await serving.control.report(lambda r: not r.problems and r.instances[0].announced, 10)
    assert report.instances[0].kernel_error == ""
    assert answers(serving)


async def test_the_route_of_somebody_else_is_no_announcement(node: Node) -> None:
    node.node.run(f"ip route add {PUBLIC}/32 dev up0")
    node.control.publish(snapshot(BACKEND))
    node.start_agent()
    node.add_instance()
    node.start_envoy()
    report = await node.control.report(lambda r: r.instances and r.problems, 15)
    assert str(PUBLIC) in report.problems[0]
    assert not report.instances[0].announced
    node.node.run(f"ip route del {PUBLIC}/32 dev up0")
    await eventually(node.is_announced, 3, "the announcement")


async def test_a_gateway_with_the_address_of_one_that_went_is_not_taken_for_it(serving: Node) -> None:
    """The agent was away: meanwhile another gateway got the address; its Envoy is not there yet."""
    serving.stop_agent()
    serving.control.publish(Gateway(id="bank.web").snapshot(BACKEND))
    serving.start_agent()
    await eventually(lambda: not serving.is_announced(), 10, "the withdrawal")
    await asyncio.sleep(1)
    assert not serving.is_announced()
    assert plane(serving.pins).instances() == set()
