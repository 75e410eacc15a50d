"""A real Envoy as the client of the delta-ADS server: wildcard CDS and LDS, EDS and RDS by name."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import yaml
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401 - ParseDict needs the types
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,  # noqa: F401
)
from envoy.service.discovery.v3 import ads_pb2_grpc
from google.protobuf.json_format import ParseDict

from epic.ads.server import DeltaServer
from epic.ads.snapshot import (
    CLUSTER,
    LISTENER,
    LOAD_ASSIGNMENT,
    ROUTE_CONFIGURATION,
    Snapshot,
    versioned,
)

ENVOY = shutil.which("envoy")
pytestmark = pytest.mark.skipif(ENVOY is None, reason="the pinned Envoy is not on the PATH")
NODE = "epic-root.U1"
STATS = "/stats?filter=warming_clusters"


class Answers:
    """A listener that keeps the newest answer of each type."""

    def __init__(self) -> None:
        self.acked: dict[str, dict[str, str]] = {}
        self.nacks: list[str] = []

    def on_ack(self, node_id: str, type_url: str, acked: dict[str, str]) -> None:
        self.acked[type_url] = acked

    def on_nack(self, node_id: str, type_url: str, message: str) -> None:
        self.nacks.append(message)

    def on_disconnect(self, node_id: str) -> None:
        pass


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def fetch(reader_writer: tuple[asyncio.StreamReader, asyncio.StreamWriter], path: str) -> str:
    reader, writer = reader_writer
    writer.write(f"GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".encode())
    reply = await reader.read()
    writer.close()
    return reply.decode()


async def get(port: int) -> str:
    """The backend's name, or the status line when Envoy answers by itself."""
    try:
        reply = await fetch(await asyncio.open_connection("127.0.0.1", port), "/")
    except OSError as error:
        return str(error)
    return reply.partition("\r\n\r\n")[2] if " 200 " in reply else reply.partition("\r\n")[0]


@asynccontextmanager
async def backend(name: str) -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Length: {len(name)}\r\nConnection: close\r\n\r\n{name}".encode()
        )
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def serving(path: Path, answers: Answers) -> AsyncIterator[DeltaServer]:
    server = grpc.aio.server()
    servicer = DeltaServer(answers, lambda node_id, _: None if node_id == NODE else "unknown")
    ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield servicer
    finally:
        await server.stop(None)


@asynccontextmanager
async def envoy(directory: Path) -> AsyncIterator[Path]:
    """Run Envoy against the socket `xds` in the directory; yields its admin socket."""
    http2 = {"explicit_http_config": {"http2_protocol_options": {}}}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    pipe = {"endpoint": {"address": {"pipe": {"path": str(directory / "xds")}}}}
    xds = {
        "name": "xds",
        "type": "STATIC",
        "typed_extension_protocol_options": {options: {"@type": f"type.googleapis.com/{options}", **http2}},
        "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [pipe]}]},
    }
    source = {"ads": {}, "resource_api_version": "V3"}
    bootstrap = {
        "node": {"id": NODE, "cluster": "root"},
        "admin": {"address": {"pipe": {"path": str(directory / "admin")}}},
        "static_resources": {"clusters": [xds]},
        "dynamic_resources": {
            "cds_config": source,
            "lds_config": source,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
        },
    }
    config = directory / "bootstrap.yaml"
    config.write_text(yaml.safe_dump(bootstrap))
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(str(ENVOY), "-c", str(config), "--concurrency", "1", "--use-dynamic-base-id"),
            stdout=log,
            stderr=log,
            env={**os.environ, "LC_ALL": "C"},
        )
        try:
            yield directory / "admin"
        finally:
            process.kill()
            await process.wait()


async def ask(admin: Path, path: str) -> str:
    return await fetch(await asyncio.open_unix_connection(admin), path)


async def eventually(condition: Callable[[], object], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event
            await asyncio.sleep(0.01)


async def until_served(port: int, name: str) -> None:
    async with asyncio.timeout(5):
        while await get(port) != name:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


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
            async with asyncio.timeout(2):
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
