# SPDX-License-Identifier: Apache-2.0
"""What a workload node gets over its stream: what is its own, by name, as long as its credential counts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from math import inf, nan
from pathlib import Path

import grpc
import pytest
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3 import discovery_pb2 as pb
from grpc_outcome import outcome
from workload_site import ACCOUNTS, Held, Site, eventually, piece, route, tunnel

from epic.ads.snapshot import NODE_STATE, WORKLOAD_TUNNEL
from epic.live import Place
from epic.model.base import now
from epic.model.resources import Account, AccountSpec, GWEndpointSlice, Node, Tunnel, User
from epic.proto import epic_pb2, epic_pb2_grpc
from epic.workloads import agents, streams

DENIED = grpc.StatusCode.PERMISSION_DENIED


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    for number, account in enumerate(ACCOUNTS):
        site.put(route(account), piece(account, f"10.{number}.0.1"), tunnel(account, 7 + number))
    yield site
    site.store.close()


async def end_of_stream(site: Site, path: Path, name: str = "shop/c/n1") -> grpc.StatusCode:
    """How the server ends a stream that it is asked for."""
    async with site.channel(path) as channel:
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)

        async def follow() -> None:
            call = stub.DeltaAggregatedResources()
            await call.write(pb.DeltaDiscoveryRequest(node={"id": name}, type_url=WORKLOAD_TUNNEL))
            while await call.read() is not grpc.aio.EOF:
                pass

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await outcome(follow)
        return refused.value.code()


async def report(channel: grpc.aio.Channel, *parts: epic_pb2.WorkloadReport) -> None:
    stub = epic_pb2_grpc.WorkloadServiceStub(channel)
    await outcome(lambda: stub.Report(iter(parts), timeout=30))


async def test_a_node_gets_its_own_tunnels_and_then_the_state_that_they_are_of(site: Site) -> None:
    site.put(tunnel("shop", 20, node="n2"))
    async with site.serving():
        path, held = await site.enrol("shop"), Held()
        async with site.agent(path, held):
            await eventually(lambda: held.revision >= 0)
    assert held.log == [(WORKLOAD_TUNNEL, ["7"], []), (NODE_STATE, ["node"], [])]
    (found,) = held.tunnels.values()
    assert (found.gateway, found.service, found.epic_address) == ("shop.g1", 3, "192.0.2.1")
    assert (found.inside_address, list(found.endpoints)) == ("100.64.0.7", ["10.0.0.1"])
    assert [(key.epoch, key.secret) for key in found.keys] == [(1, bytes.fromhex(f"{7:032x}"))]
    assert site.live.is_listed(Place("shop", "c", "n1"))


async def test_who_asks_for_the_other_protocol_is_told_so_and_writes_no_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with site.serving(), site.channel(await site.enrol("shop")) as channel:
        call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).StreamAggregatedResources()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_change_is_sent_by_the_names_of_what_it_changes(site: Site) -> None:
    site.put(tunnel("shop", 20, proxy="g2"))
    async with site.serving():
        path, held = await site.enrol("shop"), Held()
        async with site.agent(path, held):
            await eventually(lambda: held.revision >= 0)
            held.log.clear()
            with site.change() as transaction:
                found = transaction.get(GWEndpointSlice, "shop", "s1")
                transaction.update(found.model_copy(update={"spec": piece("shop", "10.0.0.2").spec}))
            await eventually(lambda: list(held.tunnels["7"].endpoints) == ["10.0.0.2"])
            await eventually(lambda: held.log[-1:] == [(NODE_STATE, ["node"], [])])
    assert held.log == [(WORKLOAD_TUNNEL, ["7"], []), (NODE_STATE, ["node"], [])]


async def test_a_tunnel_that_is_deleted_goes_and_is_acknowledged_by_its_revision(site: Site) -> None:
    async with site.serving():
        path, held = await site.enrol("shop"), Held()
        async with site.agent(path, held) as client:
            await eventually(lambda: held.revision >= 0)
            with site.change() as transaction:
                found = transaction.get(Tunnel, "shop", "7")
                gone = found.metadata.model_copy(update={"deletion_timestamp": now()})
                transaction.update(found.model_copy(update={"metadata": gone}))
            deleted = site.store.get(Tunnel, "shop", "7").metadata.resource_version
            await eventually(lambda: held.revision >= deleted)
            assert held.tunnels == {}
            assert held.log[-2:] == [(WORKLOAD_TUNNEL, [], ["7"]), (NODE_STATE, ["node"], [])]
            assert client.channel is not None
            await report(client.channel, epic_pb2.WorkloadReport(applied=held.revision))
    assert site.live.applied(Place("shop", "c", "n1"))[0] == held.revision


async def test_a_node_that_comes_again_is_sent_what_it_has_not(site: Site) -> None:
    async with site.serving():
        path, held = await site.enrol("shop"), Held()
        async with site.agent(path, held):
            await eventually(lambda: held.revision >= 0)
        held.log.clear()
        site.put(tunnel("shop", 20))
        async with site.agent(path, held):
            await eventually(lambda: len(held.tunnels) == 2)
    assert held.log[0] == (WORKLOAD_TUNNEL, ["20"], [])


async def test_an_epic_node_with_another_address_changes_tunnels_and_removes_none(site: Site) -> None:
    async with site.serving():
        path, held = await site.enrol("shop"), Held()
        async with site.agent(path, held):
            await eventually(lambda: held.revision >= 0)
            with site.change() as transaction:
                node = transaction.get(Node, "", "e1")
                spec = node.spec.model_copy(update={"address": "192.0.2.9"})
                transaction.update(node.model_copy(update={"spec": spec}))
            await eventually(lambda: held.tunnels["7"].epic_address == "192.0.2.9")
    assert not [removed for _, _, removed in held.log if removed]


@pytest.mark.parametrize("name", ["bank/c/n1", "shop/c/n2", "shop/d/n1", "e1", ""])
async def test_a_certificate_opens_what_is_its_own_nodes(site: Site, name: str) -> None:
    async with site.serving():
        path = await site.enrol("shop")
        assert await end_of_stream(site, path, name) == DENIED


async def test_names_with_slashes_are_nobody_elses(site: Site) -> None:
    async with site.serving():
        path = await site.enrol("shop", node="n1")
        assert await end_of_stream(site, path, "shop/c%2Fn1/") == DENIED


@pytest.mark.parametrize("gone", ["user", "account", "password", "cluster"])
async def test_a_credential_that_is_gone_is_worth_nothing_from_then_on(site: Site, gone: str) -> None:
    async with site.serving():
        path = await site.enrol("shop")
        ended = asyncio.create_task(end_of_stream(site, path))
        async with site.agent(path, held := Held()) as client:
            await eventually(lambda: held.revision >= 0)
            assert client.channel is not None
            with site.change() as transaction:
                if gone == "account":
                    transaction.delete(Account, "", "shop")
                elif gone == "user":
                    transaction.delete(User, "shop", "shop")
                else:
                    user = transaction.get(User, "shop", "shop")
                    spec = site.user("shop", password="another").spec
                    if gone == "cluster":
                        spec = user.spec.model_copy(update={"cluster_ids": ("another",)})
                    transaction.update(user.model_copy(update={"spec": spec}))
            assert await ended == DENIED
            async with site.channel(path) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await report(channel, epic_pb2.WorkloadReport())
                assert refused.value.code() == DENIED
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await epic_pb2_grpc.WorkloadServiceStub(channel).RenewCertificate(
                        epic_pb2.RenewCertificateRequest()
                    )
                assert refused.value.code() == DENIED
    assert "7" in held.tunnels, "it keeps what it has"


@pytest.mark.parametrize("account", ["", "bank"])
async def test_a_stream_ends_with_the_password_of_the_administrator_who_enrolled_the_node(
    site: Site, account: str
) -> None:
    site.put(site.user(account, "root", admin=True))
    async with site.serving():
        path = await site.enrol("shop", user="root")
        ended = asyncio.create_task(end_of_stream(site, path))
        await eventually(lambda: site.service.nodes)
        with site.change() as transaction:
            user = transaction.get(User, account, "root")
            spec = site.user(account, "root", password="another", admin=True).spec
            transaction.update(user.model_copy(update={"spec": spec}))
        async with asyncio.timeout(60):
            assert await ended == DENIED


async def test_a_user_gets_no_certificate_for_another_account(site: Site) -> None:
    reply = await site.ask("bank", "n1", "", of="shop")
    assert reply.status_code == 403


@pytest.mark.parametrize("cluster", ["c", "another"])
async def test_a_user_gets_certificates_for_nodes_of_the_clusters_that_it_speaks_for(
    site: Site, cluster: str
) -> None:
    with site.change() as transaction:
        user = transaction.get(User, "shop", "shop")
        spec = user.spec.model_copy(update={"cluster_ids": ("c",)})
        transaction.update(user.model_copy(update={"spec": spec}))
    reply = await site.ask("shop", "n1", "-----BEGIN", cluster=cluster)
    assert reply.status_code == (400 if cluster == "c" else 403)


async def test_a_request_that_makes_no_sense_is_refused_with_words(site: Site) -> None:
    reply = await site.ask("shop", "n1", "-----BEGIN")
    assert (reply.status_code, "request" in reply.text) == (400, True)


async def test_one_more_stream_than_a_node_may_have_ends_its_oldest_and_nobody_elses(site: Site) -> None:
    async with site.serving():
        path, other, held = await site.enrol("shop"), await site.enrol("bank"), Held()
        async with site.agent(other, held, "bank/c/n1") as undisturbed, AsyncExitStack() as stack:
            await eventually(lambda: held.revision >= 0)
            channel = undisturbed.channel
            oldest = asyncio.create_task(end_of_stream(site, path))
            await eventually(lambda: "shop/c/n1" in site.service.nodes)
            for _ in range(4):
                own = Held()
                await stack.enter_async_context(site.agent(path, own))
                await eventually(lambda own=own: own.revision >= 0)
            assert await oldest == DENIED
            assert undisturbed.channel is channel


async def test_an_account_has_twice_as_many_streams_as_workload_nodes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "AccountSpec", partial(AccountSpec, workload_node_limit=0))
    with site.change() as transaction:
        account = transaction.get(Account, "", "shop")
        spec = AccountSpec(workload_node_limit=1)
        transaction.update(account.model_copy(update={"spec": spec}))
    async with site.serving():
        paths = [await site.enrol("shop", node) for node in ("n1", "n2", "n3")]
        async with AsyncExitStack() as stack:
            for path, node in zip(paths[:2], ("n1", "n2"), strict=True):
                own = Held()
                await stack.enter_async_context(site.agent(path, own, f"shop/c/{node}"))
                await eventually(lambda own=own: own.revision >= 0)
            assert await end_of_stream(site, paths[2], "shop/c/n3") == grpc.StatusCode.RESOURCE_EXHAUSTED
            other, held = await site.enrol("bank"), Held()
            async with site.agent(other, held, "bank/c/n1"):
                await eventually(lambda: held.revision >= 0)


async def test_a_report_in_parts_counts_when_all_have_come(site: Site) -> None:
    place = Place("shop", "c", "n1")
    site.put(*(tunnel("shop", number) for number in range(20, 24)), tunnel("shop", 30, node="n2"))
    parts = [
        epic_pb2.WorkloadReport(
            applied=5,
            drops={"tag_wrong": 2},
            tunnels=[epic_pb2.TunnelStatus(id=7, rx_packets=9, epochs=[1], signing_epoch=1, hello_age=2)],
        ),
        epic_pb2.WorkloadReport(
            tunnels=[
                epic_pb2.TunnelStatus(id=number, hello_age=-1, loss=0.5)
                for number in (8, *range(20, 24), 30, 999)
            ]
        ),
    ]
    async with site.serving():
        path = await site.enrol("shop")
        async with site.channel(path) as channel:
            await report(channel, *parts)
    assert site.live.applied(place)[0] == 5
    found = {number: site.live.end(place, number) for number in (7, 8, *range(20, 24), 30, 999)}
    others = [number for number, heard in found.items() if heard is None]
    assert others == [8, 30, 999], "another account's, another node's, nobody's"
    first, last = found[7], found[20]
    assert first is not None
    assert last is not None
    assert (first.end.rx_packets, first.end.hello_age, first.end.holds.signing) == (9, 2, 1)
    assert (last.end.hello_age, last.end.loss) == (None, 0.5)
    assert site.live.drops([place])[place][0] == {"tag_wrong": 2}


@pytest.mark.parametrize("wrong", [-1.0, inf, nan])
def test_what_cannot_be_measured_is_not_kept(wrong: float) -> None:
    trip = epic_pb2.RoundTrip(last=wrong, min=0.001, avg=0.001)
    end = agents.end_of(
        epic_pb2.TunnelStatus(id=7, rx_packets=9, hello_age=wrong, loss=wrong, round_trip=trip)
    )
    assert (end.rx_packets, end.hello_age, end.loss, end.round_trip) == (9, None, None, None)


async def test_a_report_of_more_reasons_for_drops_than_there_are_is_refused(site: Site) -> None:
    part = epic_pb2.WorkloadReport(drops={str(number): 1 for number in range(201)})
    async with site.serving(), site.channel(await site.enrol("shop")) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await report(channel, part)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_of_a_node_without_tunnels_no_report_is_read(site: Site) -> None:
    async with site.serving(), site.channel(await site.enrol("shop", "n2")) as channel:
        call = epic_pb2_grpc.WorkloadServiceStub(channel).Report(timeout=60)
        # Nothing was sent, nor has it come to an end.
        assert await call == epic_pb2.WorkloadReportReply()


async def test_a_node_has_one_report_at_a_time_until_it_has_ended(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "_PAUSE_SECONDS", 0)
    async with site.serving(), site.channel(await site.enrol("shop")) as channel:
        first = epic_pb2_grpc.WorkloadServiceStub(channel).Report(timeout=60)
        await first.write(epic_pb2.WorkloadReport(applied=5))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await report(channel, epic_pb2.WorkloadReport(applied=6))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        await first.done_writing()
        assert await first == epic_pb2.WorkloadReportReply()
    assert site.live.applied(Place("shop", "c", "n1"))[0] == 5


async def test_a_part_that_is_too_large_is_refused(site: Site) -> None:
    part = epic_pb2.WorkloadReport(tunnels=[epic_pb2.TunnelStatus(id=7)] * 1001)
    async with site.serving():
        path = await site.enrol("shop")
        async with site.channel(path) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await report(channel, part)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert site.live.applied(Place("shop", "c", "n1"))[0] is None
