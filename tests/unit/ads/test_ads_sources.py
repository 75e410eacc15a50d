# SPDX-License-Identifier: Apache-2.0
"""Where a real Envoy's connections come from."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy_process import NODE, Answers, envoy, eventually, free_port, get, needs_envoy, serving
from google.protobuf.json_format import ParseDict

from epic.ads.snapshot import CLUSTER, LISTENER, LOAD_ASSIGNMENT, ROUTE_CONFIGURATION, versioned
from epic.envoy.resources import bound_to, build
from epic.gatewayapi.translate import translate
from epic.model.resources import EnvoyResources, GWProxy, GWRoute


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


pytestmark = [needs_envoy, pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")]


@asynccontextmanager
async def telling_sources(*hosts: str) -> AsyncIterator[list[int]]:
    """Backends that answer with the address that asks; yields their ports."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        source = writer.get_extra_info("peername")[0]
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(source)}\r\nConnection: close\r\n\r\n"
        writer.write(f"{head}{source}".encode())
        writer.close()

    servers = [await asyncio.start_server(answer, host, 0) for host in hosts]
    try:
        yield [server.sockets[0].getsockname()[1] for server in servers]
    finally:
        for server in servers:
            server.close()


async def test_endpoints_of_both_families_in_one_cluster_are_reached_from_the_inside_address_of_theirs(
    tmp_path: Path,
) -> None:
    port = free_port()
    listeners = [{"name": "web", "port": port, "protocol": "HTTP"}]
    spec = {
        "public-address": "127.0.0.1",
        "gateway": {"gatewayClassName": "epic", "listeners": listeners},
    }
    proxy = GWProxy.model_validate({"metadata": {"name": "U1", "namespace": "root"}, "spec": spec})
    http = {"parentRefs": [{"name": "U1"}], "rules": [{"backendRefs": [{"name": "S1"}]}]}
    route = GWRoute.model_validate({"metadata": {"name": "R", "namespace": "root"}, "spec": {"http": http}})
    bundle = build(translate(proxy, [route], {"S1"}).routing, EnvoyResources())
    bound = bound_to(bundle.clusters["svc/S1"], IPv4Address("127.0.0.9"), IPv6Address("::1"))
    answers = Answers()
    async with telling_sources("127.0.0.1", "::1") as ports, serving(tmp_path / "xds", answers) as server:
        places = [
            {"endpoint": {"address": {"socket_address": {"address": host, "port_value": number}}}}
            for host, number in zip(("127.0.0.1", "::1"), ports, strict=True)
        ]
        assignment = {"cluster_name": "svc/S1", "endpoints": [{"lb_endpoints": places}]}
        server.publish(
            NODE,
            {
                CLUSTER: {"svc/S1": versioned(bound)},
                LOAD_ASSIGNMENT: {
                    "svc/S1": versioned(ParseDict(assignment, endpoint_pb2.ClusterLoadAssignment()))
                },
                LISTENER: {n: versioned(m) for n, m in bundle.listeners.items()},
                ROUTE_CONFIGURATION: {n: versioned(m) for n, m in bundle.routes.items()},
            },
        )
        async with envoy(tmp_path):
            await eventually(lambda: ROUTE_CONFIGURATION in answers.acked)
            async with asyncio.timeout(60):
                assert {await get(port) for _ in range(4)} == {"127.0.0.9", "::1"}
    assert answers.nacks == []
