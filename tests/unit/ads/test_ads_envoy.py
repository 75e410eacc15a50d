# SPDX-License-Identifier: Apache-2.0
"""A real Envoy as the client of the delta-ADS server: wildcard CDS and LDS, EDS and RDS by name."""

from __future__ import annotations

import asyncio
from pathlib import Path

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import health_check_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401 - ParseDict needs the types
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,  # noqa: F401
)
from envoy_process import (
    NODE,
    STATS,
    Answers,
    ask,
    backend,
    envoy,
    eventually,
    free_port,
    get,
    needs_envoy,
    serving,
    until_served,
)
from google.protobuf.json_format import ParseDict

from epic.ads.snapshot import (
    CLUSTER,
    LISTENER,
    LOAD_ASSIGNMENT,
    ROUTE_CONFIGURATION,
    Snapshot,
    versioned,
)
from epic.envoy.builders.clusters import build_cluster

pytestmark = needs_envoy


def cluster(name: str, timeout: str = "2s") -> cluster_pb2.Cluster:
    eds = {"eds_config": {"ads": {}, "resource_api_version": "V3"}}
    body = {"name": name, "type": "EDS", "connect_timeout": timeout, "eds_cluster_config": eds}
    return ParseDict(body, cluster_pb2.Cluster())


def assignment(name: str, port: int) -> endpoint_pb2.ClusterLoadAssignment:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    body = {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}
    return ParseDict(body, endpoint_pb2.ClusterLoadAssignment())


def listener(name: str, port: int, prefix: str = "x") -> listener_pb2.Listener:
    base = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{base}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": prefix,
        "rds": {"route_config_name": name, "config_source": {"ads": {}, "resource_api_version": "V3"}},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{base}.http.router.v3.Router"}}],
    }
    filters = [{"name": "hcm", "typed_config": manager}]
    body = {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": filters}],
    }
    return ParseDict(body, listener_pb2.Listener())


def routes(name: str, target: str) -> route_pb2.RouteConfiguration:
    host = {
        "name": "all",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": target}}],
    }
    return ParseDict({"name": name, "virtual_hosts": [host]}, route_pb2.RouteConfiguration())


def snapshot(*, port: int, cluster_timeout: str, target: str, backends: dict[str, int]) -> Snapshot:
    return {
        CLUSTER: {n: versioned(cluster(n, cluster_timeout)) for n in backends},
        LOAD_ASSIGNMENT: {n: versioned(assignment(n, p)) for n, p in backends.items()},
        LISTENER: {"l": versioned(listener("l", port))},
        ROUTE_CONFIGURATION: {"l": versioned(routes("l", target))},
    }


async def test_envoy_serves_what_is_published(tmp_path: Path) -> None:
    port, answers = free_port(), Answers()
    async with backend("one") as one, backend("two") as two, serving(tmp_path / "xds", answers) as server:
        backends = {"a": one, "b": two}
        server.publish(NODE, snapshot(port=port, cluster_timeout="2s", target="a", backends=backends))
        async with envoy(tmp_path):
            await until_served(port, "one")
            server.publish(NODE, snapshot(port=port, cluster_timeout="2s", target="b", backends=backends))
            await until_served(port, "two")
            server.publish(NODE, snapshot(port=port, cluster_timeout="2s", target="b", backends={"b": one}))
            await until_served(port, "one")
            await eventually(lambda: answers.acked[CLUSTER].keys() == {"b"})
            assert answers.acked[LOAD_ASSIGNMENT].keys() == {"b"}
    assert answers.nacks == []


async def test_a_changed_cluster_is_warm_at_once(tmp_path: Path) -> None:
    port, answers = free_port(), Answers()
    async with backend("one") as one, serving(tmp_path / "xds", answers) as server:
        server.publish(NODE, snapshot(port=port, cluster_timeout="2s", target="a", backends={"a": one}))
        async with envoy(tmp_path) as admin:
            await until_served(port, "one")
            changed = snapshot(port=port, cluster_timeout="3s", target="a", backends={"a": one})
            server.publish(NODE, changed)
            await eventually(lambda: answers.acked[CLUSTER] == {"a": changed[CLUSTER]["a"].version})
            async with asyncio.timeout(60):
                while "warming_clusters: 0" not in await ask(admin, STATS):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert await get(port) == "one"


async def test_envoy_refuses_a_bad_resource_and_serves_on(tmp_path: Path) -> None:
    port, answers = free_port(), Answers()
    async with backend("one") as one, serving(tmp_path / "xds", answers) as server:
        good = snapshot(port=port, cluster_timeout="2s", target="a", backends={"a": one})
        server.publish(NODE, good)
        async with envoy(tmp_path):
            await until_served(port, "one")
            bad = listener("l", port, prefix="")
            server.publish(NODE, {**good, LISTENER: {"l": versioned(bad)}})
            await eventually(lambda: answers.nacks)
            assert "StatPrefix" in answers.nacks[0]
            assert await get(port) == "one"


async def test_envoy_takes_up_again_after_the_server_was_away(tmp_path: Path) -> None:
    port, answers = free_port(), Answers()
    async with backend("one") as one, backend("two") as two, envoy(tmp_path):
        for name, target in (("one", one), ("two", two)):
            async with serving(tmp_path / "xds", answers) as server:
                server.publish(
                    NODE, snapshot(port=port, cluster_timeout="2s", target="a", backends={"a": target})
                )
                await until_served(port, name)
            assert await get(port) == name
    assert answers.nacks == []


async def test_while_everything_changes_requests_meet_no_cluster_that_is_not_warm(tmp_path: Path) -> None:
    port, answers, replies = free_port(), Answers(), set()
    async with backend("one") as one, serving(tmp_path / "xds", answers) as server:

        def state(turn: int) -> Snapshot:
            backends = {f"c{i % 20}": one for i in range(turn, turn + 5)}
            return snapshot(
                port=port, cluster_timeout=f"{1 + turn % 7}s", target=f"c{turn % 20}", backends=backends
            )

        server.publish(NODE, state(0))
        async with envoy(tmp_path):
            await until_served(port, "one")
            for turn in range(1, 200):
                server.publish(NODE, state(turn))
                await asyncio.sleep(0.002)
                if turn % 5 == 0:
                    replies.add(await get(port))
            await eventually(lambda: answers.acked[CLUSTER].keys() == state(199)[CLUSTER].keys())
            await eventually(lambda: answers.acked[LOAD_ASSIGNMENT].keys() == state(199)[CLUSTER].keys())
    assert replies == {"one"}
    assert answers.nacks == []


async def test_an_endpoint_said_to_be_unhealthy_gets_nothing_though_most_are(tmp_path: Path) -> None:
    port, answers = free_port(), Answers()
    async with (
        backend("one") as one,
        backend("two") as two,
        backend("three") as three,
        serving(tmp_path / "xds", answers) as server,
    ):
        told = assignment("a", one)
        for unhealthy in (two, three):
            endpoint = assignment("a", unhealthy).endpoints[0].lb_endpoints[0]
            endpoint.health_status = health_check_pb2.UNHEALTHY
            told.endpoints[0].lb_endpoints.append(endpoint)
        content = snapshot(port=port, cluster_timeout="2s", target="a", backends={"a": one})
        content |= {CLUSTER: {"a": versioned(build_cluster("a"))}, LOAD_ASSIGNMENT: {"a": versioned(told)}}
        server.publish(NODE, content)
        async with envoy(tmp_path):
            await until_served(port, "one")
            assert {await get(port) for _ in range(20)} == {"one"}
    assert answers.nacks == []
