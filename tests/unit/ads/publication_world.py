# SPDX-License-Identifier: Apache-2.0
"""What the ADS service is put between: a store in memory, the objects in it, and agents without a network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Any

from ads_site import tunnel
from envoy.service.discovery.v3 import discovery_pb2 as pb
from google.rpc import status_pb2
from pydantic import SecretStr

from epic.ads.snapshot import TYPES
from epic.model.base import Metadata, Resource
from epic.model.instances import ProxyInstance
from epic.model.resources import GWEndpointSlice, GWProxy, GWRoute, Node, Tunnel
from epic.model.siblings import Sibling, Siblings, SiblingsSpec
from epic.model.values.keys import EpochKey
from epic.model.values.naming import GatewayId
from epic.reconcile.siblings import stamped
from epic.store.interface import Change

TIME = datetime(2026, 1, 1, tzinfo=UTC)
MOST_UNREAD = 4
"""Responses that find room between the control plane and an agent that does not read them."""


def node_object(name: str, removals: int, *, lost: bool) -> Node:
    spec, status = {"address": f"172.30.11.{name[1:]}"}, {"removals": removals, "lost": lost}
    return Node.model_validate({"metadata": {"name": name}, "spec": spec, "status": status})


def gateway_object(gateway: GatewayId, on: set[str], *, draining: bool, service: int) -> GWProxy:
    instances = tuple(
        ProxyInstance(node=n, inside_address=IPv4Address(f"100.64.{service}.{n[1:]}"), draining=draining)
        for n in sorted(on)
    )
    listener = {"name": "web", "port": 80, "protocol": "HTTP"}
    spec = {
        "public-address": "203.0.113.1",
        "gateway": {"gatewayClassName": "epic", "listeners": [listener]},
    }
    metadata = {"name": gateway.proxy, "namespace": gateway.account}
    found = GWProxy.model_validate({"metadata": metadata, "spec": spec})
    status = found.status.model_copy(update={"service": service, "instances": instances})
    return found.model_copy(update={"status": status})


def route_object(account: str, number: int, on: set[str], to: str) -> GWRoute:
    rules = [{"matches": [{"path": {"value": "/"}}], "backendRefs": [{"name": to, "port": 80}]}]
    spec = {"http": {"parentRefs": [{"name": name} for name in sorted(on)], "rules": rules}}
    metadata = {"name": f"r{number}", "namespace": account}
    return GWRoute.model_validate({"metadata": metadata, "spec": spec})


def slice_object(account: str, number: int, of: str, last: set[int]) -> GWEndpointSlice:
    spec = {
        "clientRef": {"clusterID": "lab"},
        "parentRef": {"uid": of},
        "endpoints": [{"addresses": [f"10.0.0.{n}"], "nodeName": "n1"} for n in sorted(last)],
        "ports": [{"port": 8080}],
        "nodeAddresses": {"n1": "192.168.50.11"},
    }
    metadata = {"name": f"s{number}", "namespace": account}
    return GWEndpointSlice.model_validate({"metadata": metadata, "spec": spec})


def tunnel_object(name: str, gateway: GatewayId, node: str, *, deleting: bool) -> Tunnel:
    given = tunnel()
    metadata = Metadata(name=name, namespace=gateway.account, deletion_timestamp=TIME if deleting else None)
    spec = given.spec.model_copy(update={"proxy": gateway.proxy, "epic_node": node})
    return given.model_copy(update={"metadata": metadata, "spec": spec})


def siblings_object(gateway: GatewayId, on: set[str]) -> Siblings:
    spec = SiblingsSpec(
        public_address=IPv4Address("203.0.113.1"),
        siblings=tuple(
            Sibling(node=n, index=i, address=IPv4Address("172.30.11.2"), joined=1, since=TIME)
            for i, n in enumerate(sorted(on))
        ),
        keys=(EpochKey(epoch=1, secret=SecretStr("00" * 16)),),
        signing_epoch=1,
        signing_since=TIME,
        generation=1,
        changed=TIME,
    )
    metadata = Metadata(name=gateway.proxy, namespace=gateway.account)
    return Siblings(metadata=metadata, spec=stamped(gateway, spec))


class Objects:
    """A store in memory, whose watch may break."""

    revision = 1

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str, str], Resource] = {}
        self._changes: asyncio.Queue[Change | None] = asyncio.Queue()

    def put(self, obj: Resource) -> None:
        self._objects[obj.kind, obj.account, obj.name] = obj
        self._changes.put_nowait(Change(1, obj.kind, obj.account, obj.name, obj))

    def delete(self, kind: str, account: str, name: str) -> None:
        if self._objects.pop((kind, account, name), None) is not None:
            self._changes.put_nowait(Change(1, kind, account, name, None))

    def break_watch(self) -> None:
        self._changes.put_nowait(None)

    def list(self, kind: type[Any], account: str | None = None) -> list[Any]:
        found = [o for _, o in sorted(self._objects.items()) if isinstance(o, kind)]
        return [o for o in found if account in {None, o.account}]

    def unreadable(self, *_: object) -> Sequence[object]:
        return ()

    def exists(self, *_: object) -> bool:
        return True

    async def watch(self, _: int) -> AsyncIterator[Change]:
        self._changes = asyncio.Queue()
        while True:
            change = await self._changes.get()
            if change is None:
                raise OSError("the store does not answer")
            yield change


class Unheard:
    """Statuses that nobody writes down."""

    async def configured(self, *_: object) -> None:
        pass


class Agent:
    """A node's agent, on a stream without a network."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, str]] = {type_url: {} for type_url in TYPES}
        self.unanswered: list[pb.DeltaDiscoveryResponse] = []
        self.refused: set[tuple[str, str]] = set()
        self._requests: asyncio.Queue[pb.DeltaDiscoveryRequest] = asyncio.Queue()
        self._room = asyncio.Semaphore(MOST_UNREAD)

    def begin(self, node: str) -> None:
        self.unanswered, self._requests = [], asyncio.Queue()
        self._room = asyncio.Semaphore(MOST_UNREAD)
        for type_url in TYPES:
            request = pb.DeltaDiscoveryRequest(
                type_url=type_url, initial_resource_versions=self.held[type_url]
            )
            request.node.id = node
            self._requests.put_nowait(request)

    async def requests(self) -> AsyncIterator[pb.DeltaDiscoveryRequest]:
        while True:
            yield await self._requests.get()

    async def send_initial_metadata(self, _: object) -> None:
        pass

    async def write(self, response: pb.DeltaDiscoveryResponse) -> None:
        await self._room.acquire()
        self.unanswered.append(response)

    def answer(self, *, refuses: bool = False) -> None:
        response = self.unanswered.pop(0)
        self._room.release()
        request = pb.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        held = self.held[response.type_url]
        if refuses:
            request.error_detail.CopyFrom(status_pb2.Status(code=3, message="no"))
            names = [*(r.name for r in response.resources), *response.removed_resources]
            self.refused.update((response.type_url, name) for name in names)
        else:
            held.update({resource.name: resource.version for resource in response.resources})
            for name in response.removed_resources:
                held.pop(name, None)
        self._requests.put_nowait(request)
