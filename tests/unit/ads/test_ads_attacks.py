# SPDX-License-Identifier: Apache-2.0
"""What a tenant may try through its own gateway to reach the agent: real Envoy, bootstrap and sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from ansible_collections.epic.gateway.plugins.module_utils import _instances
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3 import discovery_pb2 as pb
from envoy_process import ENVOY, backend, eventually, free_port, get, needs_envoy, until_served
from google.protobuf.json_format import ParseDict

from epic.ads.snapshot import CLUSTER, LISTENER, LOAD_ASSIGNMENT, ROUTE_CONFIGURATION, Snapshot, versioned
from epic.agent.gateway.envoy.registry import EnvoyRegistry
from epic.agent.gateway.envoy.xds import XdsSockets
from epic.envoy.resources import build
from epic.gatewayapi.translate import translate
from epic.model.resources import EnvoyResources, GWProxy, GWRoute

pytestmark = needs_envoy
BANK, EVIL = "bank.web", "evil.web"


def evil_resources(protocol: str, port: int, service: str, backend_port: int) -> Snapshot:
    """What the account's route and slice become."""
    listeners = [{"name": "l", "port": port, "protocol": protocol.upper()}]
    gateway = {"gatewayClassName": "epic", "listeners": listeners}
    spec = {"public-address": "127.0.0.1", "gateway": gateway}
    proxy = GWProxy.model_validate({"metadata": {"name": "web", "namespace": "evil"}, "spec": spec})
    body: dict[str, Any] = {"parentRefs": [{"name": "web"}], "rules": [{"backendRefs": [{"name": service}]}]}
    route = GWRoute.model_validate({"metadata": {"name": "r", "namespace": "evil"}, "spec": {protocol: body}})
    bundle = build(translate(proxy, [route], {service}).routing, EnvoyResources())
    address = {"socket_address": {"address": "127.0.0.1", "port_value": backend_port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        CLUSTER: {n: versioned(m) for n, m in bundle.clusters.items()},
        LOAD_ASSIGNMENT: {
            n: versioned(
                ParseDict({"cluster_name": n, "endpoints": endpoints}, endpoint_pb2.ClusterLoadAssignment())
            )
            for n in bundle.clusters
        },
        LISTENER: {n: versioned(m) for n, m in bundle.listeners.items()},
        ROUTE_CONFIGURATION: {n: versioned(m) for n, m in bundle.routes.items()},
    }


@asynccontextmanager
async def running(directory: Path, resources: Snapshot) -> AsyncIterator[EnvoyRegistry]:
    """A node with a gateway of each account; the Envoy of the evil one runs."""
    registry = EnvoyRegistry(lambda: None)
    sockets = XdsSockets(registry, directory / "xds", directory)
    registry.keep([BANK, EVIL])
    sockets.keep([BANK, EVIL])
    await sockets.sync()
    secret = cluster_pb2.Cluster(name="the bank's secret")
    for gateway, snapshot in ((BANK, {CLUSTER: {"c": versioned(secret)}}), (EVIL, resources)):
        registry.publish(gateway, snapshot, "r1")
        sockets.publish(gateway, snapshot)
    instance = _instances.Instance(
        gateway=EVIL,
        account="evil",
        node_id=f"epic-{EVIL}",
        public_address="127.0.0.1",
        inside_address="127.0.0.1",
        inside_address6="::1",
        interface="epg64400001298c",
        mtu=1400,
        envoy_version="1.40.0",
        concurrency=1,
    )
    text = json.dumps(_instances.bootstrap(instance))
    text = text.replace("/run/epic/agent", str(directory / "xds" / EVIL))
    text = text.replace(instance.admin_socket, str(directory / "admin"))
    config = directory / "bootstrap.json"
    config.write_text(text)
    command = (str(ENVOY), "-c", str(config), "--concurrency", "1", "--use-dynamic-base-id")
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        await eventually(lambda: registry.envoys[EVIL].current)
        yield registry
    finally:
        process.kill()
        await process.wait()
        await sockets.close()


@pytest.mark.parametrize("protocol", ["http", "tcp"])
async def test_no_service_leads_to_the_agent_whatever_it_is_called(tmp_path: Path, protocol: str) -> None:
    port = free_port()
    async with backend("my own") as own:
        resources = evil_resources(protocol, port, "epic-agent", own)
        async with running(tmp_path, resources) as registry:
            await until_served(port, "my own")
            bank = registry.envoys[BANK]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).DeltaAggregatedResources()
                request = pb.DeltaDiscoveryRequest(type_url=CLUSTER)
                request.node.id = f"epic-{BANK}"
                with pytest.raises(grpc.aio.AioRpcError):
                    await call.write(request)
                    await asyncio.wait_for(call.read(), 60)
            assert registry.envoys[BANK] == bank
            assert await get(port) == "my own"
