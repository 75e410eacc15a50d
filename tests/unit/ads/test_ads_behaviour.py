# SPDX-License-Identifier: Apache-2.0
"""What a real Envoy answers with the resources that a gateway and its routes become."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy_process import NODE, Answers, backend, envoy, eventually, free_port, needs_envoy, serving
from google.protobuf.json_format import ParseDict

from epic.ads.snapshot import CLUSTER, LISTENER, LOAD_ASSIGNMENT, ROUTE_CONFIGURATION, Snapshot, versioned
from epic.envoy.resources import build
from epic.gatewayapi.translate import translate
from epic.model.resources import EnvoyResources, GWProxy, GWRoute

pytestmark = needs_envoy


def snapshot(listeners: list[Any], routes: dict[str, Any], backends: dict[str, int | None]) -> Snapshot:
    """Resources of a gateway on the loopback address; a backend without port has no endpoint.

    `backends` has the port that listens, by Service, or by `SERVICE/PORT` for one port of a Service.
    """
    gateway = {"gatewayClassName": "epic", "listeners": listeners}
    spec = {"public-address": "127.0.0.1", "gateway": gateway}
    proxy = GWProxy.model_validate({"metadata": {"name": "U1", "namespace": "root"}, "spec": spec})
    found = [
        GWRoute.model_validate(
            {
                "metadata": {"name": name, "namespace": "root"},
                "spec": {kind: {"parentRefs": [{"name": "U1"}], **body} for kind, body in route.items()},
            }
        )
        for name, route in routes.items()
    ]
    services = {name.partition("/")[0] for name in backends}
    bundle = build(translate(proxy, found, services).routing, EnvoyResources())
    return {
        CLUSTER: {n: versioned(m) for n, m in bundle.clusters.items()},
        LOAD_ASSIGNMENT: {
            n: versioned(assignment(n, backends[n.removeprefix("svc/")])) for n in bundle.clusters
        },
        LISTENER: {n: versioned(m) for n, m in bundle.listeners.items()},
        ROUTE_CONFIGURATION: {n: versioned(m) for n, m in bundle.routes.items()},
    }


def assignment(name: str, port: int | None) -> endpoint_pb2.ClusterLoadAssignment:
    endpoints = []
    if port is not None:
        address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return ParseDict({"cluster_name": name, "endpoints": endpoints}, endpoint_pb2.ClusterLoadAssignment())


@asynccontextmanager
async def running(directory: Path, wanted: Snapshot) -> AsyncIterator[Callable[[Snapshot], Awaitable[None]]]:
    """An Envoy that serves this; yields what brings it to another state."""
    answers = Answers()
    async with serving(directory / "xds", answers) as server:
        server.publish(NODE, wanted)
        async with envoy(directory):
            await eventually(lambda: len(answers.acked.get(LISTENER, {})) == len(wanted[LISTENER]))
            routes = wanted[ROUTE_CONFIGURATION]
            await eventually(lambda: len(answers.acked.get(ROUTE_CONFIGURATION, {})) == len(routes))

            async def bring(other: Snapshot) -> None:
                server.publish(NODE, other)
                for type_url in (CLUSTER, LISTENER, ROUTE_CONFIGURATION):
                    versions = {name: resource.version for name, resource in other[type_url].items()}
                    await eventually(lambda t=type_url, v=versions: answers.acked[t] == v)

            yield bring
    assert answers.nacks == []


async def request(port: int, path: str = "/", host: str = "h", header: str = "X-None: x") -> str:
    """The backend's name, or the status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{header}\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.partition("content-length: ")[2].partition("\r\n")[0] or 0)
    body = await reader.readexactly(length)
    writer.close()
    status = head.split(" ")[1]
    return body.decode() if status == "200" else status


async def test_http_routes(tmp_path: Path) -> None:
    port = free_port()
    names = ["exact", "long", "short", "header", "wild", "named"]
    rule = {name: [{"name": name}] for name in names}
    async with AsyncExitStack() as stack:
        ports: dict[str, int | None] = {n: await stack.enter_async_context(backend(n)) for n in names}
        routes = {
            "r1": {
                "http": {
                    "rules": [
                        {"matches": [{"path": {"value": "/a"}}], "backendRefs": rule["short"]},
                        {"matches": [{"path": {"value": "/a/b"}}], "backendRefs": rule["long"]},
                        {
                            "matches": [{"path": {"type": "Exact", "value": "/a/b"}}],
                            "backendRefs": rule["exact"],
                        },
                        {
                            "matches": [
                                {"path": {"value": "/a"}, "headers": [{"name": "Kind", "value": "new"}]}
                            ],
                            "backendRefs": rule["header"],
                        },
                        {"matches": [{"path": {"value": "/gone"}}], "backendRefs": [{"name": "nowhere"}]},
                        {"matches": [{"path": {"value": "/empty"}}], "backendRefs": [{"name": "unready"}]},
                        {"matches": [{"path": {"value": "/none"}}]},
                    ]
                }
            },
            "r2": {"http": {"hostnames": ["*.example.com"], "rules": [{"backendRefs": rule["wild"]}]}},
            "r3": {
                "http": {
                    "hostnames": ["a.example.com"],
                    "rules": [{"matches": [{"path": {"value": "/x"}}], "backendRefs": rule["named"]}],
                }
            },
        }
        listeners = [{"name": "web", "port": port, "protocol": "HTTP"}]
        await stack.enter_async_context(
            running(tmp_path, snapshot(listeners, routes, {**ports, "unready": None}))
        )
        assert await request(port, "/a/b") == "exact"
        assert await request(port, "/a/b/") == "long"
        assert await request(port, "/a/b?query=1") == "exact"
        assert await request(port, "/a/bc") == "short"
        assert await request(port, "/a", header="kind: new") == "header"
        assert await request(port, "/ab") == "404"
        assert await request(port, "/gone") == "500"
        assert await request(port, "/none") == "500"
        assert await request(port, "/empty") == "503"
        assert await request(port, "/", host="b.example.com:8080") == "wild"
        assert await request(port, "/x", host="A.example.com") == "named"
        assert await request(port, "/other", host="a.example.com") == "wild", (
            "the wider hostname serves the rest"
        )
        assert await request(port, "/", host="example.com") == "404"


async def test_listeners_of_a_port_are_isolated(tmp_path: Path) -> None:
    port = free_port()
    async with backend("any") as any_port:
        listeners = [
            {"name": "any", "port": port, "protocol": "HTTP"},
            {"name": "exact", "port": port, "protocol": "HTTP", "hostname": "a.example.com"},
        ]
        parents = [{"name": "U1", "sectionName": "any"}]
        routes = {"r": {"http": {"parentRefs": parents, "rules": [{"backendRefs": [{"name": "any"}]}]}}}
        async with running(tmp_path, snapshot(listeners, routes, {"any": any_port})):
            assert await request(port, host="b.example.com") == "any"
            assert await request(port, host="a.example.com") == "404"


async def test_weights_are_shares_and_a_missing_service_has_one_too(tmp_path: Path) -> None:
    port = free_port()
    async with backend("one") as one, backend("two") as two:
        refs = [
            {"name": "one", "weight": 2},
            {"name": "two"},
            {"name": "nowhere"},
            {"name": "two", "weight": 0},
        ]
        listeners = [{"name": "web", "port": port, "protocol": "HTTP"}]
        routes = {"r": {"http": {"rules": [{"backendRefs": refs}]}}}
        async with running(tmp_path, snapshot(listeners, routes, {"one": one, "two": two})):
            answers = Counter([await request(port) for _ in range(400)])
    assert answers.keys() == {"one", "two", "500"}
    assert 140 < answers["one"] < 260
    assert 50 < answers["two"] < 160
    assert 50 < answers["500"] < 160


async def test_tcp_routes_and_ports_without_one(tmp_path: Path) -> None:
    used, unused = free_port(), free_port()
    async with backend("one") as one:
        listeners = [
            {"name": "used", "port": used, "protocol": "TCP"},
            {"name": "unused", "port": unused, "protocol": "TCP"},
        ]
        parents = [{"name": "U1", "sectionName": "used"}]
        routes = {"r": {"tcp": {"parentRefs": parents, "rules": [{"backendRefs": [{"name": "one"}]}]}}}
        async with running(tmp_path, snapshot(listeners, routes, {"one": one})):
            assert await request(used) == "one"
            reader, _ = await asyncio.open_connection("127.0.0.1", unused)
            assert await reader.read() == b"", "the connection is closed"


def to_port(service: str, port: int) -> dict[str, Any]:
    rule = {"matches": [{"path": {"value": f"/{port}"}}], "backendRefs": [{"name": service, "port": port}]}
    return {"http": {"rules": [rule]}}


async def test_a_port_of_a_service_keeps_its_backends_while_routes_to_another_come_and_go(
    tmp_path: Path,
) -> None:
    port = free_port()
    listeners = [{"name": "web", "port": port, "protocol": "HTTP"}]
    high, low = {"high": to_port("S1", 8080)}, {"low": to_port("S1", 80)}
    async with backend("low") as low_port, backend("high") as high_port:
        backends: dict[str, int | None] = {"S1/80": low_port, "S1/8080": high_port}
        alone, both = (snapshot(listeners, routes, backends) for routes in (high, {**high, **low}))
        async with running(tmp_path, alone) as bring, asking(port, "/8080") as replies:
            for _ in range(10):
                await bring(both)
                assert await request(port, "/80") == "low"
                await bring(alone)
            await eventually(lambda: replies.total() > 50)
    assert replies.keys() == {"high"}


@asynccontextmanager
async def asking(port: int, path: str) -> AsyncIterator[Counter[str]]:
    """One request after the other; counts the replies."""
    replies: Counter[str] = Counter()

    async def ask() -> None:
        while True:
            replies[await request(port, path)] += 1

    task = asyncio.create_task(ask())
    try:
        yield replies
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("name", ["epic-agent", "validate-xds", "xds", "port"])
async def test_a_service_may_have_the_name_of_a_thing_of_ours(tmp_path: Path, name: str) -> None:
    """The Envoy's own way to its server is called `xds` here."""
    port = free_port()
    listeners = [{"name": "web", "port": port, "protocol": "HTTP"}]
    routes = {"r1": to_port(name, 80), "r2": to_port("S1", 81)}
    async with backend("hostile") as hostile, backend("other") as other:
        wanted = snapshot(listeners, routes, {f"{name}/80": hostile, "S1/81": other})
        async with running(tmp_path, wanted):
            assert await request(port, "/80") == "hostile"
            assert await request(port, "/81") == "other"


async def test_a_port_may_change_its_protocol(tmp_path: Path) -> None:
    port = free_port()
    rules = {"rules": [{"backendRefs": [{"name": "S1"}]}]}
    async with backend("one") as one:
        http, tcp = (
            snapshot(
                [{"name": "web", "port": port, "protocol": protocol.upper()}],
                {"r": {protocol: rules}},
                {"S1": one},
            )
            for protocol in ("http", "tcp")
        )
        async with running(tmp_path, http) as bring:
            assert await request(port, "/") == "one"
            await bring(tcp)
            assert await request(port, "/") == "one"
            await bring(http)
            assert await request(port, "/") == "one"
