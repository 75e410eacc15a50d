# SPDX-License-Identifier: Apache-2.0
"""A gateway with an IPv6 address, alone or beside an IPv4 one, with a real Envoy, nft and kernel."""

from __future__ import annotations

import pytest
from agent_control import INTERFACE, PUBLIC, PUBLIC6, Gateway, with_siblings
from agent_node import FAR, UNDERLAY, Node, eventually, plane

pytestmark = pytest.mark.root
DUAL = Gateway(publics=(PUBLIC, PUBLIC6))
BACKEND = "192.168.50.11"


async def serve(node: Node, gateway: Gateway) -> None:
    node.control.publish(gateway.snapshot(BACKEND))
    node.start_agent()
    node.add_instance()
    node.start_envoy()
    await eventually(node.is_announced6, 60, "the announcement")


async def test_clients_reach_it_at_both_addresses(node: Node) -> None:
    node.add_ipv6()
    await serve(node, DUAL)
    await eventually(node.is_announced, 60, "the announcement of the other address")
    assert (node.get(), node.get6()) == ("hi\n", "hi\n")
    report = await node.control.report(lambda r: r.instances and r.instances[0].announced, 60)
    assert report.instances[0].kernel_error == ""


async def test_it_needs_no_ipv4_address(node: Node) -> None:
    node.add_ipv6()
    await serve(node, Gateway(publics=(PUBLIC6,)))
    assert node.get6() == "hi\n"
    assert not node.is_announced()
    assert f"{PUBLIC}" not in node.ports()


async def test_only_its_ports_are_open(node: Node) -> None:
    node.add_ipv6()
    await serve(node, DUAL)
    assert f"{PUBLIC6} . tcp . 80" in node.ports("gateway_ports6")
    node.node.run(f"nft delete element inet epic gateway_ports6 {{ {PUBLIC6} . tcp . 80 }}")
    await eventually(lambda: f"{PUBLIC6} . tcp . 80" in node.ports("gateway_ports6"), 60, "the port")
    node.control.publish(Gateway(publics=(PUBLIC, PUBLIC6), port=81, revision="r2").snapshot(BACKEND))
    await eventually(lambda: " . tcp . 80 " not in node.ports("gateway_ports6"), 60, "the closed port")
    assert f"{PUBLIC6} . tcp . 81" in node.ports("gateway_ports6")


async def test_both_are_withdrawn_when_its_envoy_is_dead(node: Node) -> None:
    node.add_ipv6()
    await serve(node, DUAL)
    await eventually(node.is_announced, 60, "the announcement of the other address")
    node.stop_envoy()
    await eventually(lambda: not node.is_announced() and not node.is_announced6(), 60, "the withdrawal")


async def test_what_others_remove_comes_back(node: Node) -> None:
    """Delivery, the routing rule, and the neighbour that the interface lost while it was down."""
    node.add_ipv6()
    await serve(node, DUAL)
    node.node.run("ip -6 rule del pref 100 lookup 200", f"ip link set {INTERFACE} down")
    node.node.run(f"ip link set {INTERFACE} up", f"ip addr replace 169.254.0.1/32 dev {INTERFACE}")
    await eventually(lambda: node.get6() == "hi\n", 60, "an answer")


async def test_a_node_that_forwards_no_ipv6_serves_the_ipv4_address_and_says_why_no_more(node: Node) -> None:
    node.control.publish(DUAL.snapshot(BACKEND))
    node.start_agent()
    node.add_instance()
    node.start_envoy()
    report = await node.control.report(lambda r: r.instances and r.instances[0].announced, 60)
    assert "forwards no IPv6: set gateway_node_forward_ipv6" in report.instances[0].address_error
    assert report.instances[0].kernel_error == ""
    assert any("forwards no IPv6" in problem for problem in report.problems)
    assert (node.get(), node.is_announced6()) == ("hi\n", False)
    node.add_ipv6()
    await eventually(node.is_announced6, 60, "the announcement")
    assert node.get6() == "hi\n"
    node.node.sysctl("conf/all/forwarding", 0, "ipv6")
    await eventually(lambda: not node.is_announced6(), 60, "the withdrawal")
    assert node.is_announced()


async def test_a_gateway_with_an_ipv6_address_alone_is_not_announced_where_ipv6_is_not_forwarded(
    node: Node,
) -> None:
    node.control.publish(Gateway(publics=(PUBLIC6,)).snapshot(BACKEND))
    node.start_agent()
    node.add_instance()
    node.start_envoy()
    report = await node.control.report(lambda r: r.instances and r.instances[0].kernel_error, 60)
    assert "forwards no IPv6: set gateway_node_forward_ipv6" in report.instances[0].kernel_error
    assert not report.instances[0].announced
    assert not node.is_announced6()
    node.add_ipv6()
    await eventually(node.is_announced6, 60, "the announcement")


async def test_its_siblings_are_known_by_both_addresses(node: Node) -> None:
    node.add_ipv6()
    content = DUAL.snapshot(BACKEND)
    node.control.publish(
        with_siblings(content, f"epic1 {UNDERLAY}", f"epic2 {FAR}", publics=(PUBLIC, PUBLIC6))
    )
    node.start_agent()
    node.add_instance()
    node.start_envoy()
    await eventually(node.is_announced6, 60, "the announcement")
    known = dict(plane(node.pins).siblings())
    assert known.keys() == {PUBLIC, PUBLIC6}
    report = await node.control.report(lambda r: r.instances and r.instances[0].applied_siblings, 60)
    assert report.instances[0].applied_siblings != "unknown"


async def test_nothing_of_it_is_left_when_it_is_gone(node: Node) -> None:
    node.add_ipv6()
    await serve(node, DUAL)
    node.control.publish({})
    await eventually(lambda: not node.is_announced6(), 60, "the withdrawal")
    await eventually(lambda: str(PUBLIC6) not in node.ports("gateway_ports6"), 60, "the closed port")
