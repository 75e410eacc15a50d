# SPDX-License-Identifier: Apache-2.0
"""How gateways and nodes go, as the control plane orders it.

- A draining gateway tells its clients to leave, is withdrawn after a while and says when it is drained.
- What is carried out is reported by digest, when nothing else is left; what is left is named.
- A node that leaves EPIC keeps nothing that the agent made, be it told by order or by refusal.
- An agent that starts where nothing is announced asks before it announces, and waits for its far ends.
"""

from __future__ import annotations

import asyncio

import pytest
from agent_control import GATEWAY, INTERFACE, PUBLIC, Gateway, snapshot, with_state
from agent_node import Node, eventually, say_hello

from epic.ads.snapshot import ENDPOINT, TUNNEL

pytestmark = pytest.mark.root
BACKEND = "192.168.50.11"


@pytest.fixture
async def serving(node: Node) -> Node:
    """A node whose gateway is announced."""
    node.control.publish(with_state(snapshot(BACKEND), "d1"))
    node.start_agent()
    node.add_instance()
    node.start_envoy()
    await eventually(node.is_announced, 60, "the announcement")
    return node


async def test_a_gateway_drains_and_serves_again(serving: Node) -> None:
    assert "close" not in serving.headers()
    serving.control.publish(with_state(Gateway(drain_seconds=30).snapshot(BACKEND), "d2"))
    await eventually(lambda: "connection: close" in serving.headers(), 2, "the word to the clients")
    assert serving.is_announced()
    await eventually(lambda: not serving.is_announced(), 5, "the withdrawal")
    report = await serving.control.report(lambda r: r.instances and r.instances[0].drained)
    assert not report.instances[0].announced
    serving.control.publish(with_state(snapshot(BACKEND), "d3"))
    await eventually(serving.is_announced, 5, "the announcement")
    assert "close" not in serving.headers()
    report = await serving.control.report(lambda r: r.applied_digest == "d3")
    assert not report.instances[0].drained


async def test_an_http2_client_of_a_draining_gateway_is_told_to_go(serving: Node) -> None:
    assert "GOAWAY" not in serving.http2_trace()
    serving.control.publish(with_state(Gateway(drain_seconds=30).snapshot(BACKEND), "d2"))
    await eventually(lambda: "connection: close" in serving.headers(), 2, "the word to the clients")
    assert "GOAWAY" in serving.http2_trace()


async def test_a_restart_of_the_agent_does_not_announce_what_drains(serving: Node) -> None:
    serving.control.publish(with_state(Gateway(drain_seconds=0).snapshot(BACKEND), "d2"))
    await eventually(lambda: not serving.is_announced(), 2, "the withdrawal")
    serving.stop_agent()
    serving.control.reports.clear()
    serving.start_agent()
    await serving.control.report(lambda r: r.instances and r.instances[0].drained, 15)
    assert not serving.is_announced()


async def test_what_is_carried_out_is_reported_when_nothing_is_left(serving: Node) -> None:
    await serving.control.report(lambda r: r.applied_digest == "d1")
    serving.control.publish(with_state({}, "d2"))
    report = await serving.control.report(lambda r: any(i.leaving for i in r.instances))
    assert [i.gateway for i in report.instances] == [GATEWAY]
    assert report.applied_digest == "d1"
    assert not serving.is_announced()
    serving.remove_instance()
    report = await serving.control.report(lambda r: r.applied_digest == "d2")
    assert not report.instances


async def test_what_an_envoy_names_and_cannot_reach_keeps_nothing_else_from_being_carried_out(
    serving: Node,
) -> None:
    """Who owns a gateway decides for how long its Envoy names an endpoint."""
    await serving.control.report(lambda r: r.applied_digest == "d1")
    serving.control.publish({**with_state(snapshot(BACKEND), "d2"), ENDPOINT: {}, TUNNEL: {}})
    await serving.control.report(lambda r: r.applied_digest == "d2", 15)


@pytest.mark.parametrize("how", ["order", "refusal"])
async def test_a_node_that_leaves_keeps_nothing(serving: Node, how: str) -> None:
    if how == "order":
        serving.control.publish(with_state({}, "d2", removed=True))
        await serving.control.report(lambda r: r.applied_digest == "d2")
    else:
        await serving.control.remove_node()
    await eventually(lambda: not serving.is_announced(), 8, "the withdrawal")
    await eventually(lambda: not list(serving.pins.glob("*")), 5, "the removal of the programs")
    assert "elements" not in serving.ports()
    assert "epic_" not in serving.node.run("tc filter show dev up0 ingress")
    assert serving.filters() == "" or "epic_" not in serving.filters()
    stored = serving.directory / "state/resources.db"
    await eventually(lambda: not stored.exists(), 2, "the removal of the state")
    assert serving.is_agent_alive()


async def test_an_agent_asks_before_it_announces_after_a_reboot(serving: Node) -> None:
    await serving.control.stop()
    serving.stop_agent()
    serving.node.run("ip route flush proto 50")
    serving.start_agent()
    await asyncio.sleep(4)
    assert not serving.is_announced()
    await asyncio.to_thread(say_hello, serving)
    assert not serving.is_announced()
    await eventually(serving.is_announced, 8, "the announcement from the stored state")


async def test_after_a_reboot_nothing_is_announced_before_far_ends_have_said_where_they_are(
    serving: Node,
) -> None:
    serving.stop_agent()
    serving.node.run("ip route flush proto 50")
    serving.control.reports.clear()
    serving.start_agent()
    await serving.control.report(
        lambda r: r.instances and r.instances[0].ready and r.applied_digest == "d1", 15
    )
    for _ in range(40):
        assert not serving.is_announced()
        await asyncio.sleep(0.05)
    await asyncio.to_thread(say_hello, serving)
    await eventually(serving.is_announced, 3, "the announcement")


async def test_a_node_that_was_away_drops_what_was_given_to_others_before_it_announces(serving: Node) -> None:
    serving.stop_agent()
    serving.node.run("ip route flush proto 50")
    serving.control.publish(with_state({}, "d2"))
    serving.start_agent()
    for _ in range(60):
        assert not serving.is_announced()
        await asyncio.sleep(0.05)
    report = await serving.control.report(lambda r: r.instances and r.instances[0].leaving)
    assert report.instances[0].gateway == GATEWAY
    assert f"{PUBLIC} dev {INTERFACE}" in serving.node.run("ip route show table 200")


async def test_a_unit_that_stops_withdraws_its_gateway_for_good(serving: Node) -> None:
    """What epic-withdraw does: Envoy is told to drain, and the flag route goes while Envoy still serves."""
    serving.fail_health()
    serving.node.run(f"ip route flush exact {PUBLIC}/32 proto 50 type blackhole table main")
    for _ in range(40):
        assert not serving.is_announced()
        await asyncio.sleep(0.05)
