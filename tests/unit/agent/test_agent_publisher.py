# SPDX-License-Identifier: Apache-2.0
"""Envoys are told what is dirty.

- A publication looks at what changed since the last one.
- What changes while one is told stays dirty, and an Envoy that goes meanwhile harms nothing.
- A gateway whose endpoints could not be made is not told, and stays dirty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path

from agent_samples import INSIDE, KEY, WEB, A, B, compare, endpoint_message, instance_message, tunnel_message
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.health_check_pb2 import UNHEALTHY
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.json_format import ParseDict

from epic.ads.snapshot import CLUSTER, ENDPOINT, INSTANCE, LOAD_ASSIGNMENT, TUNNEL, Snapshot, versioned
from epic.agent.gateway.control.resource_cache import ResourceCache
from epic.agent.gateway.envoy.publisher import Publisher
from epic.agent.gateway.envoy.registry import EnvoyRegistry
from epic.agent.gateway.envoy.xds import XdsSockets

MANY = [str(IPv4Address("10.1.0.0") + number) for number in range(5000)]


def assignment(hosts: Sequence[str]) -> ClusterLoadAssignment:
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": h, "port_value": 80}}}} for h in hosts
    ]
    data = {"cluster_name": "c", "endpoints": [{"lb_endpoints": endpoints}]}
    return ParseDict(data, ClusterLoadAssignment())


class Sockets(XdsSockets):
    """Notes what Envoys are told."""

    def __init__(self, registry: EnvoyRegistry, directory: Path) -> None:
        super().__init__(registry, directory)
        self.told: list[Snapshot] = []

    def publish(self, gateway: str, snapshot: Snapshot) -> None:
        assert gateway == WEB
        self.told.append(snapshot)


class Node:
    """A gateway with a tunnel and an endpoint, which the programs have."""

    def __init__(self, directory: Path, hosts: Sequence[str]) -> None:
        self.cache = ResourceCache()
        self.cache.update(INSTANCE, {WEB: versioned(instance_message(revision="r1"))})
        self.cache.update(TUNNEL, {"7": versioned(tunnel_message((1, KEY)))})
        self.cache.update(ENDPOINT, {f"{WEB}/{A}": versioned(endpoint_message(A))})
        cluster = Cluster(name="c", type=Cluster.EDS)
        self.cache.update(CLUSTER, {f"{WEB}/c": versioned(cluster)})
        self.cache.update(LOAD_ASSIGNMENT, {f"{WEB}/c": versioned(assignment(hosts))})
        compare(self.cache, dict(self.cache.endpoints()))
        self.registry = EnvoyRegistry(lambda: None)
        self.registry.keep([WEB])
        self.sockets = Sockets(self.registry, directory)
        self.publisher = Publisher(self.cache, self.registry, self.sockets)

    async def publish(self, *broken: str) -> None:
        cache = self.cache
        parts = {gateway: cache.parts.get(gateway) for gateway in cache.dirty.gateways}
        await self.publisher.publish(parts, dict(cache.instances), broken)

    @property
    def named(self) -> list[str]:
        """The endpoints that the Envoy was told last."""
        body = self.sockets.told[-1][LOAD_ASSIGNMENT]["c"].body.value
        endpoints = ClusterLoadAssignment.FromString(body).endpoints[0].lb_endpoints
        return [endpoint.endpoint.address.socket_address.address for endpoint in endpoints]

    @property
    def health(self) -> int:
        """What the Envoy was told last of the first endpoint."""
        body = self.sockets.told[-1][LOAD_ASSIGNMENT]["c"].body.value
        return ClusterLoadAssignment.FromString(body).endpoints[0].lb_endpoints[0].health_status


async def test_an_envoy_hears_that_a_tunnel_is_down_and_that_it_is_back(tmp_path: Path) -> None:
    node = Node(tmp_path, [str(A)])
    await node.publish()
    assert (node.health, node.cache.dirty.gateways) == (0, set())
    node.publisher.set_down(frozenset({7}))
    await node.publish()
    assert node.health == UNHEALTHY
    node.publisher.set_down(frozenset())
    await node.publish()
    assert (node.health, len(node.sockets.told)) == (0, 3)


async def test_an_envoy_is_not_told_what_no_tunnel_reaches(tmp_path: Path) -> None:
    node = Node(tmp_path, [str(A), str(B)])
    await node.publish()
    assert node.named == [str(A)]
    asked = [(INSIDE, A), (INSIDE, B)]
    assert node.publisher.told(WEB, asked) == {(INSIDE, A)}
    node.cache.update(ENDPOINT, {}, [f"{WEB}/{A}"])
    assert node.publisher.told(WEB, asked) == {(INSIDE, A)}
    await node.publish()
    assert (node.named, node.publisher.told(WEB, asked)) == ([], frozenset())


async def test_an_envoy_without_an_accepted_configuration_keeps_what_it_has_where_it_is_reached(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path, [str(A)])
    await node.publish()
    node.cache.update(INSTANCE, {WEB: versioned(instance_message(revision=""))})
    node.cache.update(CLUSTER, {}, [f"{WEB}/c"])
    node.cache.update(LOAD_ASSIGNMENT, {}, [f"{WEB}/c"])
    await node.publish()
    assert (node.named, len(node.sockets.told)) == ([str(A)], 1)
    node.publisher.set_down(frozenset({7}))
    await node.publish()
    assert node.health == UNHEALTHY
    node.cache.update(ENDPOINT, {}, [f"{WEB}/{A}"])
    await node.publish()
    assert node.named == []
    assert node.cache.dirty.gateways == set()


async def test_what_changes_while_an_envoy_is_told_is_told_next(tmp_path: Path) -> None:
    node = Node(tmp_path, [str(A), *MANY])
    publishing = asyncio.create_task(node.publish())
    await asyncio.sleep(0)
    node.publisher.set_down(frozenset({7}))
    await publishing
    assert (len(node.sockets.told), node.cache.dirty.gateways) == (1, {WEB})
    await node.publish()
    assert (node.health, node.cache.dirty.gateways) == (UNHEALTHY, set())


async def test_an_instance_that_goes_while_its_envoy_is_told_harms_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path, [str(A), *MANY])
    publishing = asyncio.create_task(node.publish())
    await asyncio.sleep(0)
    node.cache.update(INSTANCE, {}, [WEB])
    node.registry.keep([])
    node.publisher.keep([])
    await publishing
    assert (node.sockets.told, node.cache.dirty.gateways) == ([], {WEB})


async def test_a_gateway_whose_endpoints_could_not_be_made_is_told_later(tmp_path: Path) -> None:
    node = Node(tmp_path, [str(A)])
    await node.publish(WEB)
    assert (node.sockets.told, node.cache.dirty.gateways) == ([], {WEB})
    await node.publish()
    assert (node.health, node.cache.dirty.gateways) == (0, set())


async def test_a_gateway_that_cannot_be_reached_at_all_is_not_remembered_endpoint_by_endpoint() -> None:
    cache = ResourceCache()
    cache.dirty.touch_reach(WEB, (f"{WEB}/{address}" for address in MANY))
    assert cache.dirty.take_reach(WEB) is None
    assert cache.dirty.take_reach(WEB) == frozenset()
