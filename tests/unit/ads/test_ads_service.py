# SPDX-License-Identifier: Apache-2.0
"""The ADS service with the real store, mutual TLS and the pinned Envoy as judge of configurations."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from ads_site import (
    BAD,
    Held,
    Site,
    change_instance,
    eventually,
    group,
    needs_envoy,
    node_state,
    proxy,
    route,
    running,
    slice_of,
    tunnel,
)
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from node_certificates import issue

from epic.ads.delta.client import DeltaClient
from epic.ads.service import AdsService
from epic.ads.snapshot import (
    CLUSTER,
    ENDPOINT,
    INSTANCE,
    LISTENER,
    LOAD_ASSIGNMENT,
    NODE_STATE,
    ROUTE_CONFIGURATION,
    TUNNEL,
    TYPES,
    Versioned,
)
from epic.live import Live, Place
from epic.model.resources import (
    GWEndpointSlice,
    GWProxy,
    LBServiceGroup,
    Node,
)
from epic.proto import epic_pb2, epic_pb2_grpc

pytestmark = needs_envoy


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def test_an_agent_gets_all_of_a_gateway(site: Site) -> None:
    site.put(proxy(), route(), slice_of("10.1.0.1"), tunnel())
    held = Held()
    async with site.serving(), site.agent(held):
        await eventually(lambda: held.resources[ROUTE_CONFIGURATION])
        assert held.names(LISTENER) == held.names(ROUTE_CONFIGURATION) == {"root.U1/port/80"}
        assert held.names(LOAD_ASSIGNMENT) == {"root.U1/svc/S1/80"}
        instance = epic_pb2.Instance.FromString(held.resources[INSTANCE]["root.U1"].body.value)
        assert (instance.interface, instance.ports[0].number) == ("epg64400001298c", 80)
        cluster = Cluster.FromString(held.resources[CLUSTER]["root.U1/svc/S1/80"].body.value)
        assert cluster.upstream_bind_config.source_address.address == "100.64.0.1"
        made = epic_pb2.Tunnel.FromString(held.resources[TUNNEL]["7"].body.value)
        assert (made.declared_address, made.keys[0].secret) == ("192.168.50.11", bytes(16))
        endpoint = epic_pb2.Endpoint.FromString(held.resources[ENDPOINT]["root.U1/10.1.0.1"].body.value)
        assert (endpoint.tunnel, endpoint.inside_address) == (7, "100.64.0.1")
        await eventually(lambda: site.condition("Accepted") == ("True", "Accepted"))
        assert instance.revision == site.proxy().status.revision


async def test_endpoints_change_without_a_new_revision(site: Site) -> None:
    site.put(proxy(), route(), slice_of("10.1.0.1"), tunnel())
    held = Held()
    async with site.serving(), site.agent(held):
        await eventually(lambda: held.resources[NODE_STATE])
        held.log.clear()
        with site.store.transaction() as transaction:
            old = transaction.get(GWEndpointSlice, "root", "E1")
            new = slice_of("10.1.0.2", ready=True)
            transaction.update(old.model_copy(update={"spec": new.spec}))
        await eventually(lambda: len(held.log) == 3)
        assert held.log == [
            (ENDPOINT, ["root.U1/10.1.0.2"], []),
            (LOAD_ASSIGNMENT, ["root.U1/svc/S1/80"], []),
            (ENDPOINT, [], ["root.U1/10.1.0.1"]),
        ]


async def test_an_endpoint_that_is_not_ready_has_a_tunnel_but_no_traffic(site: Site) -> None:
    site.put(proxy(), route(), slice_of("10.1.0.1", ready=False), tunnel())
    held = Held()
    async with site.serving(), site.agent(held):
        await eventually(lambda: held.resources[ROUTE_CONFIGURATION])
        assert held.names(ENDPOINT) == {"root.U1/10.1.0.1"}
        body = held.resources[LOAD_ASSIGNMENT]["root.U1/svc/S1/80"].body.value
        assert list(ClusterLoadAssignment.FromString(body).endpoints) == []


async def test_a_deleted_gateway_leaves_nothing(site: Site) -> None:
    site.put(proxy(), route(), slice_of("10.1.0.1"), tunnel())
    held = Held()
    async with site.serving(), site.agent(held):
        await eventually(lambda: held.resources[ROUTE_CONFIGURATION])
        with site.store.transaction() as transaction:
            transaction.delete(GWProxy, "root", "U1")
        await eventually(lambda: not held.names(INSTANCE))
        assert [type_url for type_url, resources in held.resources.items() if resources] == [NODE_STATE]
        assert list((site.directory / "revisions").iterdir()) == []


async def test_a_node_is_told_to_drain_then_to_drop_an_instance_and_what_to_report(site: Site) -> None:
    site.put(proxy(), route(), slice_of("10.1.0.1"), tunnel())
    held = Held()
    async with site.serving(), site.agent(held):
        await eventually(lambda: held.resources[NODE_STATE])
        digests = [node_state(held).digest]
        change_instance(site, phase="Draining", drain_seconds=30)
        await eventually(lambda: node_state(held).digest not in digests)
        instance = epic_pb2.Instance.FromString(held.resources[INSTANCE]["root.U1"].body.value)
        assert (instance.draining, instance.drain_seconds) == (True, 30)
        assert held.names(TUNNEL) == {"7"}
        digests.append(node_state(held).digest)
        change_instance(site, phase="Removed")
        await eventually(lambda: node_state(held).digest not in digests)
        left = [type_url for type_url, resources in held.resources.items() if resources]
        assert left == [NODE_STATE]
        assert not node_state(held).removed


async def test_a_configuration_that_envoy_refuses_does_not_replace_the_good_one(site: Site) -> None:
    site.put(group(), proxy(group="g"), route(), slice_of("10.1.0.1"), tunnel())
    held = Held()
    async with site.serving(), site.agent(held):
        await eventually(lambda: held.resources[ROUTE_CONFIGURATION])
        good = dict(held.resources[CLUSTER])
        with site.store.transaction() as transaction:
            old = transaction.get(LBServiceGroup, "root", "g")
            transaction.update(old.model_copy(update={"spec": BAD.spec}))
        await eventually(lambda: site.condition("Accepted") == ("False", "InvalidConfiguration"))
        message = next(c.message for c in site.proxy().status.conditions if c.type == "Accepted")
        assert message == "Envoy refuses the configuration: Invalid duration: Expected positive duration"
        assert held.resources[CLUSTER] == good
    site.service = AdsService(site.store, site.settings)
    restarted = Held()
    async with site.serving(), site.agent(restarted):
        await eventually(lambda: restarted.resources[ROUTE_CONFIGURATION])
        assert restarted.resources[CLUSTER] == good, "nor after a restart of the control plane"


async def test_a_gateway_whose_first_configuration_is_bad_gets_none_and_recovers(site: Site) -> None:
    site.put(BAD, proxy(group="g"), route(), slice_of("10.1.0.1"), tunnel())
    held = Held()
    async with site.serving(), site.agent(held):
        await eventually(lambda: held.resources[INSTANCE])
        assert not held.resources[LISTENER]
        assert epic_pb2.Instance.FromString(held.resources[INSTANCE]["root.U1"].body.value).revision == ""
        with site.store.transaction() as transaction:
            old = transaction.get(LBServiceGroup, "root", "g")
            transaction.update(old.model_copy(update={"spec": group().spec}))
        await eventually(lambda: held.resources[ROUTE_CONFIGURATION])
        await eventually(lambda: site.condition("Accepted") == ("True", "Accepted"))


async def test_reports_become_the_status_of_gateway_and_node(site: Site) -> None:
    site.put(proxy())
    report = epic_pb2.NodeReport(node="epic1", agent_version="0.1.0")
    report.instances.add(gateway="root.U1", ready=True, announced=True, serving_revision="abc")
    async with site.serving(), site.channel() as channel:
        await eventually(lambda: site.condition("Accepted") == ("True", "Accepted"))
        stub = epic_pb2_grpc.AgentServiceStub(channel)
        await stub.Report(report)
        (instance,) = site.proxy().status.instances
        assert (instance.ready, instance.announced, instance.serving_revision) == (True, True, "abc")
        assert site.condition("Ready") == ("True", "AllInstancesServe")
        assert site.store.get(Node, "", "epic1").status.agent_version == "0.1.0"
        before = site.store.revision
        await stub.Report(report)
        assert site.store.revision == before, "the same again is no write"
        report.instances[0].announced = False
        report.instances[0].error = "no"
        await stub.Report(report)
        assert site.condition("Ready") == ("False", "NoInstanceServes")


async def test_a_report_of_the_instances_alone_leaves_what_is_known_of_tunnels(site: Site) -> None:
    site.put(proxy())
    live = Live()
    site.service = AdsService(site.store, site.settings, live)
    whole = epic_pb2.NodeReport(node="epic1", drops={"too_big": 1})
    whole.tunnels.add(id=7, rx_bytes=5, hello_age=-1)
    part = epic_pb2.NodeReport(node="epic1", instances_only=True)
    part.instances.add(gateway="root.U1", ready=True, announced=True, serving_revision="abc")
    place = Place("", "", "epic1")
    async with site.serving(), site.channel() as channel:
        await eventually(lambda: site.condition("Accepted") == ("True", "Accepted"))
        stub = epic_pb2_grpc.AgentServiceStub(channel)
        await stub.Report(whole)
        await stub.Report(part)
    assert site.condition("Ready") == ("True", "AllInstancesServe")
    heard = live.end(place, 7)
    assert heard is not None
    assert heard.end.rx_bytes == 5
    assert live.drops([place])[place][0] == {"too_big": 1}


async def test_a_certificate_of_another_node_is_refused(site: Site, tmp_path: Path) -> None:
    issue(tmp_path, "epic2")
    site.put(proxy())
    held = Held()
    async with site.serving(), site.channel("epic2") as channel:
        client = DeltaClient(lambda: site.channel("epic2"), "epic1", TYPES, held)
        async with running(asyncio.create_task(client.run())):
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await epic_pb2_grpc.AgentServiceStub(channel).Report(epic_pb2.NodeReport(node="epic1"))
            assert refusal.value.code() == grpc.StatusCode.PERMISSION_DENIED
            await asyncio.sleep(0.3)
    assert held.log == []


async def test_after_a_restart_an_agent_is_told_only_what_changed(site: Site) -> None:
    site.put(proxy(), route(), slice_of("10.1.0.1"), tunnel())
    held = Held()
    async with site.serving(), site.agent(held):
        await eventually(lambda: held.resources[NODE_STATE])
    held.log.clear()
    site.service = AdsService(site.store, site.settings)
    async with site.serving():
        client = DeltaClient(site.channel, "epic1", TYPES, held)
        async with running(asyncio.create_task(client.run())):
            await eventually(lambda: len(held.log) == len(TYPES))
    assert held.log == [(t, [], []) for t in TYPES]


async def test_nothing_is_built_any_more_when_it_has_ended(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def hang(*_: object) -> None:
        begun.set()
        await asyncio.sleep(1000)

    monkeypatch.setattr(site.service._judge, "_ask", hang)
    site.put(proxy(), route(), slice_of("10.1.0.1"), tunnel())
    async with site.serving(), asyncio.timeout(60):
        await begun.wait()
    assert not [task for task in asyncio.all_tasks() if "_build" in repr(task.get_coro())]


async def test_a_node_that_comes_back_with_its_100_000_endpoints_is_heard(site: Site) -> None:
    gateway = "account." + "g" * 36
    held = Held()
    held.resources[ENDPOINT] = {
        f"{gateway}/10.{n >> 16}.{n >> 8 & 255}.{n & 255}": Versioned("0" * 16, ENDPOINT, b"")
        for n in range(100_000)
    }
    async with site.serving(), site.agent(held):
        await eventually(lambda: held.names(NODE_STATE) and not held.names(ENDPOINT))
