# SPDX-License-Identifier: Apache-2.0
"""The gateway role with a real Envoy, nft and kernel.

- A gateway is announced while its Envoy serves the whole configuration, and only then.
- A dead Envoy's gateway is withdrawn at once and comes back by itself.
- A refused change is reported; the gateway stays with its last good configuration.
- Tunnels and endpoints follow the control plane; an endpoint outlives its removal till Envoy lets go.
- Nothing depends on the control plane being up, nor on the agent.
- What is gone leaves nothing, also when the agent was down meanwhile; nor does the agent after a clean-up.
"""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address

import pytest
from agent_control import INSIDE, INTERFACE, PUBLIC, TUNNEL_ID, Gateway, snapshot
from agent_node import FAR, Node, endpoints_at, eventually, plane, say_hello, tunnel_ids_at

from epic.ads.snapshot import ENDPOINT
from epic.bpf.dataplane import Dataplane, Endpoint
from epic.bpf.packets import wire

pytestmark = pytest.mark.root
BACKEND, OTHER = IPv4Address("192.168.50.11"), IPv4Address("192.168.50.12")


@pytest.fixture
async def serving(node: Node) -> Node:
    """A node whose gateway is announced."""
    node.control.publish(snapshot(str(BACKEND)))
    node.start_agent()
    node.add_instance()
    node.start_envoy()
    await eventually(node.is_announced, 60, "the announcement")
    return node


def dataplane(node: Node) -> Dataplane:
    return plane(node.pins)


async def test_a_gateway_is_announced_when_its_envoy_serves(node: Node) -> None:
    node.control.publish(snapshot(str(BACKEND)))
    node.start_agent()
    await eventually(node.xds_socket.exists, 60)
    node.add_instance()
    await asyncio.sleep(0.3)
    assert not node.is_announced()

    node.start_envoy()
    await eventually(node.is_announced, 60, "the announcement")
    assert node.get() == "hi\n"
    report = await node.control.report(lambda r: r.instances and r.instances[0].announced)
    assert (report.instances[0].ready, report.instances[0].serving_revision) == (True, "r1")


async def test_a_dead_envoys_gateway_is_withdrawn_at_once_and_comes_back(serving: Node) -> None:
    serving.stop_envoy()
    assert await eventually(lambda: not serving.is_announced(), 2, "the withdrawal") < 0.3
    serving.start_envoy()
    await eventually(serving.is_announced, 60, "the second announcement")
    assert serving.get() == "hi\n"


async def test_a_gateway_without_the_whole_configuration_is_not_announced(node: Node) -> None:
    node.control.publish(Gateway(broken=True).snapshot(str(BACKEND)))
    node.start_agent()
    node.add_instance()
    node.start_envoy()
    report = await node.control.report(lambda r: r.instances and r.instances[0].error, 15)
    assert "198.51.100.1" in report.instances[0].error
    assert not report.instances[0].announced
    assert not node.is_announced()


async def test_a_refused_change_leaves_the_gateway_as_it_was(serving: Node) -> None:
    serving.control.publish(Gateway(revision="r2", broken=True).snapshot(str(BACKEND)))
    report = await serving.control.report(lambda r: r.instances and r.instances[0].error)
    assert report.instances[0].serving_revision == "r1"
    assert serving.is_announced()
    assert serving.get() == "hi\n"

    serving.control.publish(Gateway(revision="r3").snapshot(str(BACKEND)))
    report = await serving.control.report(lambda r: r.instances[0].serving_revision == "r3")
    assert not report.instances[0].error


async def test_endpoints_follow_the_control_plane(serving: Node) -> None:
    assert endpoints_at(serving.pins) == {(INSIDE, BACKEND): Endpoint(TUNNEL_ID)}
    serving.control.publish(snapshot(str(BACKEND), str(OTHER)))
    await eventually(lambda: len(endpoints_at(serving.pins)) == 2, what="the new endpoint")
    serving.control.publish(snapshot(str(OTHER)))
    await eventually(lambda: endpoints_at(serving.pins) == {(INSIDE, OTHER): Endpoint(TUNNEL_ID)}, 60)


async def test_an_endpoint_keeps_its_tunnel_while_envoy_may_use_it(serving: Node) -> None:
    serving.freeze_envoy()
    serving.control.publish(snapshot(str(OTHER)))
    await eventually(lambda: (INSIDE, OTHER) in endpoints_at(serving.pins))
    await asyncio.sleep(0.5)
    assert (INSIDE, BACKEND) in endpoints_at(serving.pins)
    serving.thaw_envoy()
    await eventually(lambda: (INSIDE, BACKEND) not in endpoints_at(serving.pins), 60)


async def test_an_endpoint_without_a_tunnel_gets_no_requests(serving: Node) -> None:
    whole = Gateway(revision="r2", forward=True).snapshot(str(BACKEND))
    serving.control.publish({**whole, ENDPOINT: {}})
    await eventually(lambda: serving.get() == "no healthy upstream", 60, "the refusal")
    serving.control.publish(whole)
    await eventually(lambda: serving.get() != "no healthy upstream", 60, "an attempt")


async def test_ports_are_open_for_what_the_gateway_listens_on(serving: Node) -> None:
    assert f"{PUBLIC} . tcp . 80" in serving.ports()
    serving.control.publish(Gateway(port=8080).snapshot(str(BACKEND)))
    await eventually(lambda: f"{PUBLIC} . tcp . 8080" in serving.ports())
    await eventually(lambda: f"{PUBLIC} . tcp . 80 " not in serving.ports())


async def test_an_envoy_restarts_while_the_control_plane_is_down(serving: Node) -> None:
    await serving.control.stop()
    serving.stop_envoy()
    await eventually(lambda: not serving.is_announced())
    serving.start_envoy()
    assert await eventually(serving.is_announced, 60) < 2
    assert serving.get() == "hi\n"


async def test_the_agent_serves_from_its_stored_state(serving: Node) -> None:
    await serving.control.stop()
    serving.stop_agent()
    serving.stop_envoy()
    serving.start_agent()
    await eventually(lambda: not serving.is_announced(), 10)
    serving.start_envoy()
    await eventually(serving.is_announced, 60)
    assert serving.get() == "hi\n"
    assert (serving.directory / "state" / "resources.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("how", ["stopped", "killed", "without its state"])
async def test_a_restart_of_the_agent_touches_nothing(serving: Node, how: str) -> None:
    serving.stop_agent(crash=how == "killed")
    assert serving.is_announced()
    assert serving.get() == "hi\n"
    if how == "without its state":
        (serving.directory / "state" / "resources.db").unlink()
    serving.control.reports.clear()
    serving.start_agent()
    async with asyncio.timeout(15):
        while not any(r.instances and r.instances[0].serving_revision for r in serving.control.reports):
            assert serving.is_announced()
            assert serving.get() == "hi\n"
            await asyncio.sleep(0.02)
    assert serving.is_announced()
    assert endpoints_at(serving.pins) == {(INSIDE, BACKEND): Endpoint(TUNNEL_ID)}


async def test_a_removed_gateway_leaves_nothing(serving: Node) -> None:
    serving.control.publish({})
    await eventually(lambda: not serving.is_announced())
    await eventually(lambda: not tunnel_ids_at(serving.pins), what="the removal of the tunnel")
    await eventually(lambda: is_clean(serving), what="the removal of everything")
    serving.remove_instance()


async def test_a_gateway_that_went_while_the_agent_was_down_leaves_nothing(serving: Node) -> None:
    serving.stop_agent()
    serving.control.publish({})
    serving.remove_instance()
    serving.start_agent()
    await eventually(lambda: not serving.is_announced(), 10)
    await eventually(lambda: is_clean(serving), what="the removal of everything")


async def test_an_agent_without_state_removes_nothing_before_it_knows(serving: Node) -> None:
    await serving.control.stop()
    serving.stop_agent()
    (serving.directory / "state" / "resources.db").unlink()
    serving.start_agent()
    await asyncio.sleep(2)
    assert serving.is_announced()
    assert serving.get() == "hi\n"


async def test_a_hello_is_answered_and_shows_in_the_report(serving: Node) -> None:
    reply = await asyncio.to_thread(say_hello, serving)
    assert (reply.kind, reply.tunnel, reply.counter, reply.echo_ns) == (wire.Kind.HELLO_ACK, TUNNEL_ID, 5, 77)
    report = await serving.control.report(lambda r: r.tunnels and r.tunnels[0].hello_age >= 0)
    assert (report.tunnels[0].observed_address, report.tunnels[0].observed_port) == (FAR, 6080)


async def test_a_clean_up_leaves_nothing(serving: Node) -> None:
    serving.stop_agent()
    serving.clean_up()
    assert not serving.is_announced()
    assert "elements" not in serving.ports()
    assert not serving.pins.exists() or not list(serving.pins.iterdir())
    assert "bpf" not in serving.node.run(f"tc filter show dev {INTERFACE} ingress")


def is_clean(node: Node) -> bool:
    plane = dataplane(node)
    return (
        not plane.endpoints()
        and not plane.tunnel_ids()
        and "elements" not in node.ports()
        and "bpf" not in node.filters()
        and f"blackhole {PUBLIC}" not in node.node.run("ip route show table main")
    )
