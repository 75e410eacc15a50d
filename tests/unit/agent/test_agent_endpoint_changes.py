# SPDX-License-Identifier: Apache-2.0
"""Endpoints come and go as their Envoys follow.

- However an owner changes what is behind a gateway, its node has entries for its endpoints and few more.
- An Envoy that has let go of an endpoint may have requests under way there: it stays for some seconds.
- What waits for an Envoy for long is said; it goes when the Envoy has let go, is away, or has had a minute.
- An Envoy that is told something all the time keeps no endpoint for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from agent_samples import KEY, WEB, compare, endpoint_message, instance_message, tunnel_message
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.json_format import ParseDict

from epic.ads.snapshot import CLUSTER, ENDPOINT, ENVOY_TYPES, INSTANCE, LOAD_ASSIGNMENT, TUNNEL, versioned
from epic.agent.gateway.control.resource_cache import ResourceCache
from epic.agent.gateway.desired import Desired
from epic.agent.gateway.endpoint_changes import EndpointChanges
from epic.agent.gateway.envoy.publisher import Publisher
from epic.agent.gateway.envoy.readiness import GIVEN_UP_SECONDS, RELEASE_SECONDS
from epic.agent.gateway.envoy.registry import EnvoyRegistry
from epic.agent.gateway.envoy.xds import XdsSockets
from epic.agent.gateway.plans import plan
from epic.agent.gateway.plans.leaving import most_leaving
from epic.agent.tunnel.endpoints import EndpointKey
from epic.bpf.dataplane import Endpoint

ALL = [str(IPv4Address("10.1.0.0") + number) for number in range(400)]


def assignment(hosts: Sequence[str]) -> ClusterLoadAssignment:
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": h, "port_value": 80}}}} for h in hosts
    ]
    return ParseDict(
        {"cluster_name": "c", "endpoints": [{"lb_endpoints": endpoints}]}, ClusterLoadAssignment()
    )


class Sockets(XdsSockets):
    """Tells nobody."""

    def publish(self, gateway: str, snapshot: object) -> None:
        assert gateway == WEB


class Node:
    """A gateway with a tunnel; its rounds, without a kernel."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("epic.agent.gateway.envoy.registry.time.monotonic", lambda: self.now)
        self.cache = ResourceCache()
        self.cache.update(INSTANCE, {WEB: versioned(instance_message())})
        self.cache.update(TUNNEL, {"7": versioned(tunnel_message((1, KEY)))})
        self.cache.update(CLUSTER, {f"{WEB}/c": versioned(Cluster(name="c", type=Cluster.EDS))})
        compare(self.cache, {})
        self.registry = EnvoyRegistry(lambda: None)
        self.registry.keep([WEB])
        self.publisher = Publisher(self.cache, self.registry, Sockets(self.registry, directory))
        self.changes = EndpointChanges(self.cache, self.registry, self.publisher.told, lambda: self.now)
        self.kernel: dict[EndpointKey, Endpoint] = {}

    def name(self, *hosts: str) -> None:
        """All of these are in the gateway's assignment."""
        self.cache.update(LOAD_ASSIGNMENT, {f"{WEB}/c": versioned(assignment(hosts))})

    def reach(self, *hosts: str) -> None:
        """These are behind the tunnel, and no others."""
        gone = self.cache.versions(ENDPOINT).keys() - {f"{WEB}/{host}" for host in hosts}
        updated = {f"{WEB}/{h}": versioned(endpoint_message(IPv4Address(h))) for h in hosts}
        self.cache.update(ENDPOINT, updated, sorted(gone))

    async def round(self) -> None:
        differences = self.changes.differences()
        wanted = {key: d.wanted for key, d in differences.items() if d.wanted is not None}
        there = {key: d.there for key, d in differences.items() if d.there is not None}
        desired = Desired(dict(self.cache.instances), dict(self.cache.tunnels), wanted)
        links = {instance.interface: 9 for instance in desired.instances.values()}
        observed = plan.Observed(links, {}, dict(self.cache.tunnels), there, {})
        self._do(plan.additions(desired, observed))
        parts = {gateway: self.cache.parts.get(gateway) for gateway in self.cache.dirty.gateways}
        await self.publisher.publish(parts, desired.instances, ())
        observed = replace(observed, endpoints={k: d.there for k, d in differences.items() if d.there})
        self._do(plan.removals(desired, observed, self.changes.released(plan.leaving(desired, observed))))

    def _do(self, actions: list[plan.Action]) -> None:
        for action in actions:
            if isinstance(action, plan.SetEndpoints):
                self.kernel.update(action.endpoints)
            elif isinstance(action, plan.DeleteEndpoints):
                self.kernel = {key: e for key, e in self.kernel.items() if key not in action.keys}
        self.changes.note(actions, ())

    @property
    def there(self) -> set[str]:
        return {str(address) for _, address in self.kernel}

    def connect(self) -> None:
        """The Envoy is there, and has nothing yet."""
        self.registry.on_connect(WEB)

    def let_go(self) -> None:
        """The Envoy has all that it was told, and had the time to end what was under way."""
        self.acknowledge()
        self.now += RELEASE_SECONDS

    def acknowledge(self) -> None:
        """The Envoy has all that it was told."""
        for url in ENVOY_TYPES:
            self.registry.on_ack(WEB, url, self.registry.envoys[WEB].wanted.get(url, {}))


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(tmp_path, monkeypatch)


async def lead_elsewhere(node: Node) -> None:
    """The tunnels reach ten endpoints, and then ten others; the Envoy has acknowledged the first ones."""
    node.name(*ALL)
    node.reach(*ALL[:10])
    node.connect()
    await node.round()
    node.acknowledge()
    node.reach(*ALL[10:20])
    await node.round()


async def test_what_no_tunnel_reaches_any_more_goes_although_the_configuration_names_it(node: Node) -> None:
    await lead_elsewhere(node)
    assert node.there == set(ALL[:20])
    node.let_go()
    await node.round()
    assert node.there == set(ALL[10:20])


async def test_requests_under_way_have_the_time_to_end(node: Node) -> None:
    await lead_elsewhere(node)
    node.acknowledge()
    node.now += RELEASE_SECONDS - 1
    await node.round()
    assert node.there == set(ALL[:20])
    assert node.changes.waits


@pytest.mark.parametrize("acknowledges", [True, False])
async def test_who_leads_a_service_elsewhere_again_and_again_has_few_entries_more_than_endpoints(
    node: Node, monkeypatch: pytest.MonkeyPatch, acknowledges: bool
) -> None:
    monkeypatch.setattr("epic.agent.gateway.plans.leaving._SHARED", 20)
    most = 10 + most_leaving(1, 10, 10)
    node.name(*ALL)
    node.connect()
    for first in range(0, 300, 10):
        node.reach(*ALL[first : first + 10])
        await node.round()
        assert len(node.there) <= most
        if acknowledges:
            node.let_go()
            await node.round()
            assert node.there == set(ALL[first : first + 10])
    assert bool(node.changes.held) is not acknowledges


async def test_what_is_held_back_comes_when_the_envoy_has_let_go(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epic.agent.gateway.plans.leaving._SHARED", 2)
    await lead_elsewhere(node)
    assert (len(node.changes.held), len(node.there), node.changes.waits) == (6, 14, True)
    assert node.changes.problems == ()
    node.now += 2 * RELEASE_SECONDS
    await node.round()
    assert node.changes.problems == (
        f"6 endpoints of gateway {WEB} wait until the Envoys of their accounts "
        "let go of others that are wanted no more",
    )
    node.acknowledge()
    await node.round()
    await node.round()
    assert node.there == set(ALL[10:20])
    assert (node.changes.held, node.changes.waits, node.changes.problems) == (frozenset(), False, ())


async def test_an_envoy_that_is_away_keeps_none_by_being_told_something_all_the_time(node: Node) -> None:
    node.name(*ALL)
    node.reach(*ALL[:10])
    await node.round()
    for step in range(10, 40, 10):
        node.reach(*ALL[step : step + 10])
        await node.round()
        node.now += RELEASE_SECONDS / 2
    await node.round()
    assert not set(ALL[:20]) & node.there
    assert set(ALL[20:40]) <= node.there


async def test_an_envoy_that_acknowledges_nothing_keeps_none_for_ever(node: Node) -> None:
    node.name(*ALL)
    node.reach(*ALL[:10])
    node.connect()
    await node.round()
    node.reach(ALL[0])
    await node.round()
    node.now += GIVEN_UP_SECONDS - 1
    await node.round()
    assert node.there == set(ALL[:10])
    node.now += 1
    await node.round()
    assert node.there == {ALL[0]}


async def test_an_envoy_that_refuses_its_listeners_lets_go_of_endpoints(node: Node) -> None:
    node.name(*ALL)
    node.reach(*ALL[:10])
    node.connect()
    await node.round()
    node.acknowledge()
    node.registry.on_nack(WEB, ENVOY_TYPES[0], "no")
    node.reach(ALL[0])
    await node.round()
    node.registry.on_ack(WEB, LOAD_ASSIGNMENT, node.registry.envoys[WEB].wanted[LOAD_ASSIGNMENT])
    node.now += RELEASE_SECONDS
    await node.round()
    assert node.there == {ALL[0]}
