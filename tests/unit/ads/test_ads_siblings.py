# SPDX-License-Identifier: Apache-2.0
"""Lists of siblings on the ADS stream: when they come, what a change costs, who knows nothing of them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from ads_site import (
    Held,
    Site,
    change_instance,
    eventually,
    needs_envoy,
    proxy,
    route,
    running,
    slice_of,
    tunnel,
)
from clock import Clock
from envoy.service.discovery.v3 import discovery_pb2 as pb
from pydantic import SecretStr

from epic.ads.delta.client import DeltaClient
from epic.ads.delta.unpaced import UnpacedStream
from epic.ads.desired.siblings import SiblingLists
from epic.ads.service import AdsService
from epic.ads.snapshot import INSTANCE, NODE_STATE, SIBLINGS, TUNNEL, TYPES
from epic.model.base import Metadata
from epic.model.siblings import Sibling, Siblings, SiblingsSpec
from epic.model.values.keys import EpochKey
from epic.model.values.naming import GatewayId
from epic.proto import epic_pb2, epic_pb2_grpc
from epic.reconcile.siblings import stamped
from epic.siblings.heard import AppliedLists
from epic.store.interface import Change

TIME = datetime(2026, 1, 1, tzinfo=UTC)
GATEWAY = GatewayId("root", "U1")
OTHER_TYPES = [type_url for type_url in TYPES if type_url != SIBLINGS]


def siblings(*nodes: str, epoch: int = 1, generation: int = 1) -> Siblings:
    spec = SiblingsSpec(
        public_address=IPv4Address("203.0.113.1"),
        siblings=tuple(
            Sibling(node=node, index=index, address=IPv4Address("172.30.11.2"), joined=1, since=TIME)
            for index, node in enumerate(nodes)
        ),
        keys=(EpochKey(epoch=epoch, secret=SecretStr("00" * 16)),),
        signing_epoch=epoch,
        signing_since=TIME,
        generation=generation,
        changed=TIME,
    )
    metadata = Metadata(name="U1", namespace="root")
    return Siblings(metadata=metadata, spec=stamped(GATEWAY, spec))


def change_siblings(site: Site, new: Siblings) -> None:
    with site.store.transaction() as transaction:
        stored = transaction.get(Siblings, "root", "U1")
        transaction.update(stored.model_copy(update={"spec": new.spec}))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@needs_envoy
async def test_a_list_comes_after_the_instance_under_the_version_that_is_stored(site: Site) -> None:
    site.put(proxy(), route(), slice_of("10.1.0.1"), tunnel(), siblings("epic1", "epic2"))
    held = Held()
    async with site.serving(), site.agent(held):
        await eventually(lambda: held.resources[NODE_STATE])
        order = [type_url for type_url, updated, _ in held.log if updated]
        assert order.index(INSTANCE) < order.index(SIBLINGS) < order.index(TUNNEL)
        resource = held.resources[SIBLINGS][str(GATEWAY)]
        assert resource.version == site.store.get(Siblings, "root", "U1").spec.version
        got = epic_pb2.Siblings.FromString(resource.body.value)
        assert (got.public_addresses, [s.node for s in got.siblings]) == (["203.0.113.1"], ["epic1", "epic2"])
        assert (got.keys[0].secret, got.signing_epoch) == (bytes(16), 1)


@needs_envoy
async def test_a_change_of_the_list_sends_the_list_and_nothing_else(site: Site) -> None:
    site.put(proxy(), route(), slice_of("10.1.0.1"), tunnel(), siblings("epic1"))
    held = Held()
    async with site.serving(), site.agent(held):
        await eventually(lambda: held.resources[NODE_STATE])
        held.log.clear()
        change_siblings(site, siblings("epic1", "epic2", epoch=2, generation=2))
        await eventually(lambda: held.log)
        change_siblings(site, siblings("epic2", epoch=3, generation=3))
        await eventually(lambda: not held.resources[SIBLINGS])
    assert held.log == [(SIBLINGS, [str(GATEWAY)], []), (SIBLINGS, [], [str(GATEWAY)])]


@needs_envoy
@pytest.mark.parametrize(("field", "why"), [("hold", "WaitsForSiblings: ..."), ("unconnected", "pending")])
async def test_an_instance_is_held_and_let_go(site: Site, field: str, why: str) -> None:
    site.put(proxy(), siblings("epic1"))
    change_instance(site, **{field: why})
    held = Held()

    def is_held() -> bool | None:
        found = held.resources[INSTANCE].get(str(GATEWAY))
        return bool(getattr(epic_pb2.Instance.FromString(found.body.value), field)) if found else None

    async with site.serving(), site.agent(held):
        await eventually(lambda: is_held() is True)
        change_instance(site, **{field: ""})
        await eventually(lambda: is_held() is False)


@needs_envoy
async def test_an_agent_that_asks_for_no_lists_gets_all_else(site: Site) -> None:
    site.put(proxy(), route(), slice_of("10.1.0.1"), tunnel(), siblings("epic1"))
    held = Held()
    async with site.serving():
        client = DeltaClient(site.channel, "epic1", OTHER_TYPES, held)
        async with running(asyncio.create_task(client.run())):
            await eventually(lambda: held.resources[NODE_STATE])
            held.log.clear()
            change_siblings(site, siblings("epic1", "epic2", generation=2))
            change_instance(site, phase="Draining")
            await eventually(lambda: held.log)
    assert held.names(INSTANCE) == {str(GATEWAY)}
    assert held.names(TUNNEL) == {"7"}
    assert all(type_url != SIBLINGS for type_url, _, _ in held.log)


def test_an_agent_that_asks_for_what_the_control_plane_does_not_have_gets_an_empty_answer() -> None:
    stream = UnpacedStream(order=OTHER_TYPES)
    for type_url in TYPES:
        stream.receive(pb.DeltaDiscoveryRequest(type_url=type_url))
    responses = stream.advance({type_url: {} for type_url in OTHER_TYPES})
    assert {response.type_url for response in responses if response} == set(TYPES)


@needs_envoy
async def test_what_nodes_have_is_heard_for_gateways_that_they_have_alone(site: Site) -> None:
    heard: list[set[GatewayId]] = []
    clock = Clock()
    applied = AppliedLists(clock.seconds)
    site.service = AdsService(site.store, site.settings, applied=applied, hear_applied=heard.append)
    site.put(proxy(), siblings("epic1"))
    held, both = Held(), siblings("epic1", "epic2").spec.siblings
    async with site.serving(), site.agent(held), site.channel() as channel:
        await eventually(lambda: held.resources[NODE_STATE])
        report = epic_pb2.NodeReport(node="epic1", second_chance=True)
        report.instances.add(gateway=str(GATEWAY), applied_siblings="v1")
        report.instances.add(gateway="root.another", applied_siblings="v1")
        report.instances.add(gateway="no gateway id", applied_siblings="v1")
        report.silent_addresses.append(str(both[1].address))
        stub = epic_pb2_grpc.AgentServiceStub(channel)
        for _ in range(13):
            await stub.Report(report)
            clock.pass_(10)
    assert heard == [{GATEWAY}]
    assert applied.said(GATEWAY, ["epic1", "epic2"])["epic1"].version == "v1"
    assert applied.said(GATEWAY, ["epic2"])["epic2"].version is None
    assert applied.silent(both) == {"epic2"}


def test_a_change_of_one_list_leaves_those_of_others_as_they_are() -> None:
    lists = SiblingLists()
    first = siblings("epic1", "epic2")
    assert lists.apply(Change(1, Siblings.kind, "root", "U1", first)) == {"epic1", "epic2"}
    lists.apply(Change(2, Siblings.kind, "root", "U2", first))
    before = lists.of("epic1")
    changed = Change(3, Siblings.kind, "root", "U2", siblings("epic2", "epic3"))
    assert lists.apply(changed) == {"epic1", "epic2", "epic3"}
    assert lists.of("epic1") == {"root.U1": before["root.U1"]}
    assert lists.apply(Change(4, Siblings.kind, "root", "U1", None)) == {"epic1", "epic2"}
    assert lists.of("epic1") == {}
