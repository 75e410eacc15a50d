# SPDX-License-Identifier: Apache-2.0
"""A store with a node, the ADS service on it, and agents that take everything."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

import grpc
import pytest
from node_certificates import issue, issuer
from pydantic import SecretStr
from stores import open_store

from epic.ads.delta.client import DeltaClient, mtls_channel
from epic.ads.service import AdsService
from epic.ads.settings import AdsSettings
from epic.ads.snapshot import (
    NODE_STATE,
    TYPES,
    Resources,
    Versioned,
)
from epic.model.base import Metadata
from epic.model.instances import ProxyInstance
from epic.model.resources import (
    GWEndpointSlice,
    GWProxy,
    GWRoute,
    LBServiceGroup,
    Node,
    Tunnel,
    TunnelSpec,
)
from epic.model.values.keys import EpochKey
from epic.proto import epic_pb2

ENVOY = shutil.which("envoy")
needs_envoy = pytest.mark.skipif(ENVOY is None, reason="the pinned Envoy is not on the PATH")


class Held:
    """An agent that takes everything and notes the order."""

    def __init__(self) -> None:
        self.resources: dict[str, dict[str, Versioned]] = {t: {} for t in TYPES}
        self.log: list[tuple[str, list[str], list[str]]] = []

    async def apply(self, type_url: str, updated: Resources, removed: Sequence[str]) -> str | None:
        self.log.append((type_url, sorted(updated), list(removed)))
        self.resources[type_url].update(updated)
        for name in removed:
            self.resources[type_url].pop(name, None)
        return None

    def versions(self, type_url: str) -> Mapping[str, str]:
        return {name: resource.version for name, resource in self.resources[type_url].items()}

    def names(self, type_url: str) -> set[str]:
        return set(self.resources[type_url])


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(work: asyncio.Future[None] | asyncio.Task[None]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


class Site:
    """A store with one node and the service on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pki = issue(directory, "epic1")
        self.store = open_store(directory / "epic.db")
        control = directory / "control"
        self.settings = AdsSettings(
            listen="127.0.0.1",
            port=0,
            certificate=control / "server.crt",
            key=control / "server.key",
            issuer=issuer(directory),
            envoy_binary=Path(str(ENVOY)),
            revisions=directory / "revisions",
        )
        self.service = AdsService(self.store, self.settings)
        self.put(Node.model_validate({"metadata": {"name": "epic1"}, "spec": {"address": "172.30.11.2"}}))

    def put(self, *objects: object) -> None:
        with self.store.transaction() as transaction:
            for obj in objects:
                transaction.create(obj)  # type: ignore[type-var]

    def proxy(self) -> GWProxy:
        return self.store.get(GWProxy, "root", "U1")

    def condition(self, kind: str, gateway: str = "U1") -> tuple[str, str]:
        proxy = self.store.get(GWProxy, "root", gateway)
        found = [c for c in proxy.status.conditions if c.type == kind]
        return (found[0].status, found[0].reason) if found else ("", "")

    def channel(self, node: str = "epic1") -> grpc.aio.Channel:
        pki = self.directory / node
        address = f"127.0.0.1:{self.service.port}"
        return mtls_channel(address, pki / "ca.crt", pki / "agent.pem")

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with running(asyncio.create_task(self.service.run())):
            await eventually(lambda: self.service.port)
            yield

    @asynccontextmanager
    async def agent(self, held: Held, node: str = "epic1") -> AsyncIterator[None]:
        client = DeltaClient(self.channel, node, TYPES, held)
        async with running(asyncio.create_task(client.run())):
            yield


def proxy(group: str = "") -> GWProxy:
    listener = {"name": "web", "port": 80, "protocol": "HTTP"}
    found = GWProxy.model_validate(
        {
            "metadata": {"name": "U1", "namespace": "root"},
            "spec": {
                "public-address": "203.0.113.1",
                "group": group,
                "gateway": {"gatewayClassName": "epic", "listeners": [listener]},
            },
        }
    )
    instance = ProxyInstance(node="epic1", inside_address=IPv4Address("100.64.0.1"))
    return found.model_copy(
        update={"status": found.status.model_copy(update={"service": 3, "instances": (instance,)})}
    )


def route(path: str = "/") -> GWRoute:
    rule = {"matches": [{"path": {"value": path}}], "backendRefs": [{"name": "S1", "port": 80}]}
    http = {"parentRefs": [{"name": "U1"}], "rules": [rule]}
    return GWRoute.model_validate({"metadata": {"name": "R1", "namespace": "root"}, "spec": {"http": http}})


def slice_of(*addresses: str, ready: bool = True) -> GWEndpointSlice:
    endpoints = [{"addresses": [a], "nodeName": "n1", "conditions": {"ready": ready}} for a in addresses]
    spec = {
        "clientRef": {"clusterID": "lab"},
        "parentRef": {"uid": "S1"},
        "endpoints": endpoints,
        "ports": [{"port": 8080}],
        "nodeAddresses": {"n1": "192.168.50.11"},
    }
    return GWEndpointSlice.model_validate({"metadata": {"name": "E1", "namespace": "root"}, "spec": spec})


def tunnel() -> Tunnel:
    spec = TunnelSpec(
        proxy="U1",
        service=3,
        epic_node="epic1",
        inside_address=IPv4Address("100.64.0.1"),
        cluster_id="lab",
        node_name="n1",
        node_address=IPv4Address("192.168.50.11"),
        keys=(EpochKey(epoch=1, secret=SecretStr("00" * 16)),),
        signing_epoch=1,
        signing_since=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return Tunnel(metadata=Metadata(name="7", namespace="root"), spec=spec)


def change_instance(site: Site, **update: object) -> None:
    with site.store.transaction() as transaction:
        stored = transaction.get(GWProxy, "root", "U1")
        (instance,) = stored.status.instances
        instances = (instance.model_copy(update=update),)
        status = stored.status.model_copy(update={"instances": instances})
        transaction.update(stored.model_copy(update={"status": status}))


def node_state(held: Held) -> epic_pb2.NodeState:
    return epic_pb2.NodeState.FromString(held.resources[NODE_STATE]["node"].body.value)


def group(*cluster_templates: str) -> LBServiceGroup:
    templates = [{"name": f"t{i}", "value": value} for i, value in enumerate(cluster_templates)]
    envoy = {"envoyResources": {"clusters": templates}}
    spec = {"service-prefix": "default", "envoy-template": envoy}
    return LBServiceGroup.model_validate({"metadata": {"name": "g", "namespace": "root"}, "spec": spec})


BAD = group("name: {{ ClusterName | tojson }}\ntype: EDS\nconnect_timeout: -2s\n")
