"""The workload role behind NAT, together with the gateway role.

- Requests cross the tunnel, though only the workload node can open the way, with strict reverse path filters.
- A reboot of the node without the REST API changes nothing.
- What is listed no more is removed, after a while; so is everything by a clean-up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from agent_control import INSIDE, TUNNEL_ID, snapshot
from agent_node import Node, eventually
from agent_workload import ADDRESS, ROUTER, Workload, tunnel_list

import epic.bpf
from epic.bpf.dataplane import Dataplane

pytestmark = pytest.mark.root


@pytest.fixture
async def workload(node: Node, tmp_path: Path, bpffs: Path) -> AsyncIterator[Workload]:
    """A workload node and an EPIC node whose Envoy sends requests to it."""
    directory = tmp_path / "workload"
    directory.mkdir()
    made = Workload(node, directory, bpffs / f"{tmp_path.name}-workload")
    made.start_api()
    made.start_backend()
    node.control.publish(snapshot(ADDRESS, forward=True))
    node.start_agent()
    await eventually((node.run_directory / "xds.sock").exists, 10)
    node.add_instance()
    node.start_envoy()
    await eventually(node.is_announced, 15, "the announcement")
    yield made
    made.close()


def reached(node: Node) -> bool:
    return node.get().startswith("backend")


@cache
def dataplane(workload: Workload) -> Dataplane:
    return Dataplane(workload.pins, Path(epic.bpf.__file__).with_name("gue.bpf.o"))


def route(workload: Workload) -> str:
    return workload.namespace.run(f"ip route show {INSIDE} proto 50")


async def test_requests_cross_the_tunnel(node: Node, workload: Workload) -> None:
    assert not reached(node)
    workload.start_agent()
    await eventually(lambda: reached(node), 15, "an answer of the backend")
    assert workload.api.paths[0].startswith("/api/epic/accounts/shop/tunnels?cluster=lab&node=node1&watch")
    assert f"via {ROUTER} dev up0 mtu 1452" in route(workload), route(workload)

    counters = dataplane(workload).tunnel_counters()[TUNNEL_ID]
    assert min(counters.rx_packets, counters.tx_packets) > 5
    report = await node.control.report(lambda r: r.tunnels and r.tunnels[0].rx_packets)
    assert report.tunnels[0].observed_address == "172.30.11.1"
    assert 0 <= report.tunnels[0].hello_age < 8


async def test_a_reboot_without_the_rest_api_changes_nothing(node: Node, workload: Workload) -> None:
    workload.start_agent()
    await eventually(lambda: reached(node), 15, "an answer of the backend")
    workload.api.stop()
    workload.stop_agent()
    assert reached(node)
    workload.clean_up()
    assert not reached(node)
    workload.start_agent()
    await eventually(lambda: reached(node), 15, "an answer after the reboot")
    state = workload.directory / "state"
    assert {path.stat().st_mode & 0o777 for path in state.iterdir()} == {0o600}


async def test_what_is_listed_no_more_is_removed(node: Node, workload: Workload) -> None:
    workload.start_agent()
    await eventually(lambda: bool(dataplane_endpoints(workload)), 15, "the endpoint")
    workload.api.publish(tunnel_list(ADDRESS, "192.168.50.99"))
    both = {(INSIDE, IPv4Address(ADDRESS)), (INSIDE, IPv4Address("192.168.50.99"))}
    await eventually(lambda: dataplane_endpoints(workload) == both, what="the second endpoint")
    workload.api.publish(tunnel_list())
    await eventually(lambda: not dataplane_endpoints(workload), 10, "the removal of the endpoints")
    await eventually(lambda: not dataplane(workload).tunnel_ids() and not route(workload))


async def test_a_clean_up_leaves_nothing(node: Node, workload: Workload) -> None:
    workload.start_agent()
    await eventually(lambda: bool(dataplane_endpoints(workload)), 15, "the endpoint")
    await eventually(lambda: bool(route(workload)))
    workload.stop_agent()
    workload.clean_up()
    assert not route(workload)
    assert "bpf" not in workload.namespace.run("tc filter show dev up0 ingress")
    assert "bpf" not in workload.namespace.run("tc filter show dev up0 egress")


def dataplane_endpoints(workload: Workload) -> set[tuple[IPv4Address, IPv4Address]]:
    try:
        return set(dataplane(workload).endpoints())
    except FileNotFoundError:
        # The programs are not loaded yet.
        return set()
