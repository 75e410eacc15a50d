# SPDX-License-Identifier: Apache-2.0
"""The xDS sockets of a node's gateways: each is one gateway's, whatever is said on it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3 import discovery_pb2 as pb

from epic.ads.snapshot import CLUSTER, LOAD_ASSIGNMENT, Snapshot, versioned
from epic.agent.gateway.envoy.registry import EnvoyRegistry
from epic.agent.gateway.envoy.xds import XdsSockets

Stream = grpc.aio.StreamStreamCall[pb.DeltaDiscoveryRequest, pb.DeltaDiscoveryResponse]

BANK, SHOP = "bank.web", "shop.web"


def secret(of: str) -> Snapshot:
    return {CLUSTER: {"c": versioned(Cluster(name=f"of {of}"))}}


class Node:
    """The sockets of two gateways, and what is known of their Envoys."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.registry = EnvoyRegistry(lambda: None)
        self.namespaces = directory / "netns"
        self.namespaces.mkdir()
        self.sockets = XdsSockets(self.registry, directory / "xds", self.namespaces)

    def socket(self, gateway: str) -> Path:
        return self.directory / "xds" / gateway / "xds.sock"

    async def serve(self, *gateways: str) -> None:
        self.registry.keep(gateways)
        self.sockets.keep(gateways)
        await self.sockets.sync()
        for gateway in gateways:
            self.sockets.publish(gateway, secret(gateway))


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(tmp_path)
    await made.serve(BANK, SHOP)
    yield made
    await made.sockets.close()


@contextlib.asynccontextmanager
async def stream(socket: Path, node_id: str, held: dict[str, str] | None = None) -> AsyncIterator[Stream]:
    """An Envoy, or one that says so, which asks for clusters."""
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).DeltaAggregatedResources()
        request = pb.DeltaDiscoveryRequest(type_url=CLUSTER, initial_resource_versions=held or {})
        request.node.id = node_id
        await call.write(request)
        yield call


async def clusters(socket: Path, node_id: str) -> list[str]:
    async with stream(socket, node_id) as call:
        response = await call.read()
        assert response is not grpc.aio.EOF, await call.code()
        return [Cluster.FromString(resource.resource.value).name for resource in response.resources]


async def ended(call: Stream) -> grpc.StatusCode:
    """Wait for the end of the stream; how it ended."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call.read()
    return error.value.code()


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event
            await asyncio.sleep(0.01)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_an_envoy_gets_what_was_published_for_its_gateway(node: Node) -> None:
    assert await clusters(node.socket(BANK), "epic-bank.web") == ["of bank.web"]
    assert await clusters(node.socket(SHOP), "epic-shop.web") == ["of shop.web"]


async def test_who_claims_to_be_another_gateways_envoy_is_refused_and_changes_nothing(node: Node) -> None:
    before = dict(node.registry.envoys)
    async with stream(node.socket(SHOP), "epic-bank.web", {"c": "1"}) as call:
        assert await ended(call) == grpc.StatusCode.PERMISSION_DENIED
        assert "this is the socket of 'epic-shop.web'" in str(await call.details())
    assert node.registry.envoys == before


async def test_who_says_who_it_is_cannot_become_another_afterwards(node: Node) -> None:
    async with stream(node.socket(SHOP), "epic-shop.web") as call:
        await call.read()
        bank = node.registry.envoys[BANK]
        again = pb.DeltaDiscoveryRequest(type_url=CLUSTER, response_nonce="1")
        again.node.id = "epic-bank.web"
        await call.write(again)
        await eventually(lambda: bool(node.registry.envoys[SHOP].held[CLUSTER]))
    await eventually(lambda: not node.registry.envoys[SHOP].connected)
    assert node.registry.envoys[BANK] == bank


async def test_only_root_enters_the_directory_of_all_and_anybody_a_mounted_one(node: Node) -> None:
    directory = node.directory / "xds"
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (directory, directory / BANK, node.socket(BANK))]
    assert modes == [0o700, 0o711, 0o666]


async def test_a_gateway_that_goes_ends_its_streams_alone_and_leaves_nothing(node: Node) -> None:
    async with (
        stream(node.socket(BANK), "epic-bank.web") as bank,
        stream(node.socket(SHOP), "epic-shop.web") as shop,
    ):
        await bank.read()
        await shop.read()
        await node.serve(SHOP)
        await ended(bank)
        assert node.registry.envoys[SHOP].connected
    assert [path.name for path in (node.directory / "xds").iterdir()] == [SHOP]
    assert await clusters(node.socket(SHOP), "epic-shop.web") == ["of shop.web"]


async def test_a_gateway_that_goes_and_comes_at_once_is_served_anew(node: Node) -> None:
    async with stream(node.socket(BANK), "epic-bank.web") as call:
        await call.read()
        node.sockets.keep([SHOP])
        await node.serve(BANK, SHOP)
        await ended(call)
    assert await clusters(node.socket(BANK), "epic-bank.web") == ["of bank.web"]


@pytest.mark.parametrize("what", ["socket", "directory", "everything"])
async def test_a_socket_that_somebody_took_away_comes_back(node: Node, what: str) -> None:
    node.socket(BANK).unlink()
    if what != "socket":
        node.socket(BANK).parent.rmdir()
    if what == "everything":
        node.socket(SHOP).unlink()
        node.socket(SHOP).parent.rmdir()
        (node.directory / "xds").rmdir()
    task = asyncio.create_task(node.sockets.run())
    await eventually(lambda: node.socket(BANK).exists() and node.socket(SHOP).exists())
    # A file is there a moment before who listens: to end that in between would leave nobody.
    assert await clusters(node.socket(BANK), "epic-bank.web") == ["of bank.web"]
    task.cancel()


async def test_one_that_cannot_be_made_stops_no_other_and_comes_when_it_can(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = node.directory / "xds" / "third.web"
    in_the_way.touch()
    for _ in range(2):
        await node.serve(BANK, SHOP, "third.web", "fourth.web")
    assert caplog.text.count("gateway third.web has no xDS socket") == 1
    assert await clusters(node.socket("fourth.web"), "epic-fourth.web") == ["of fourth.web"]
    in_the_way.unlink()
    await node.sockets.sync()
    assert await clusters(node.socket("third.web"), "epic-third.web") == ["of third.web"]


async def test_the_socket_of_an_agent_that_was_killed_is_replaced(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.socket(BANK).parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(node.socket(BANK)))
    await node.serve(BANK)
    assert await clusters(node.socket(BANK), "epic-bank.web") == ["of bank.web"]
    await node.sockets.close()


async def test_what_is_left_of_gone_gateways_goes_but_not_what_a_unit_has_just_made(node: Node) -> None:
    for gateway in ("left.web", "new.web"):
        (node.directory / "xds" / gateway).mkdir()
    (node.namespaces / "epic-new.web").touch()
    await node.sockets.sync()
    assert {path.name for path in (node.directory / "xds").iterdir()} == {BANK, SHOP, "new.web"}


async def test_an_agent_that_knows_nothing_yet_removes_nothing(tmp_path: Path) -> None:
    (tmp_path / "xds" / BANK).mkdir(parents=True)
    node = Node(tmp_path)
    await node.sockets.sync()
    assert (tmp_path / "xds" / BANK).exists()


async def test_more_connections_than_an_envoy_has_cost_the_agent_no_files(node: Node) -> None:
    before = open_files()
    with contextlib.ExitStack() as opened:
        for _ in range(100):
            client = opened.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect(str(node.socket(SHOP)))
            await asyncio.sleep(0)
        await eventually(lambda: open_files() - before - 100 < 20)
        assert await clusters(node.socket(BANK), "epic-bank.web") == ["of bank.web"]


async def test_more_streams_than_an_envoy_has_are_refused(node: Node) -> None:
    async with grpc.aio.insecure_channel(f"unix:{node.socket(SHOP)}") as channel:
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)
        calls = [stub.DeltaAggregatedResources() for _ in range(20)]
        await eventually(lambda: sum(call.done() for call in calls) == 12)
        codes = {await call.code() for call in calls if call.done()}
        for call in calls:
            call.cancel()
    assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}


async def test_names_without_end_are_not_kept(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    async with stream(node.socket(SHOP), "epic-shop.web") as call:
        await call.read()
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            for batch in range(50):
                names = [f"{batch}/{number}" for number in range(10_000)]
                await call.write(
                    pb.DeltaDiscoveryRequest(type_url=LOAD_ASSIGNMENT, resource_names_subscribe=names)
                )
        async with asyncio.timeout(60):
            while not call.done():
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await call.read()
    assert "more was asked for than is kept" in caplog.text


async def test_an_envoys_words_for_a_refusal_leave_room_for_others_in_the_report(node: Node) -> None:
    async with stream(node.socket(SHOP), "epic-shop.web") as call:
        for type_url in (CLUSTER, "type.googleapis.com/a.Kind"):
            if type_url != CLUSTER:
                await call.write(pb.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=["x"]))
            response = await call.read()
            refusal = pb.DeltaDiscoveryRequest(type_url=type_url, response_nonce=response.nonce)
            refusal.error_detail.message = "no" * 1_000_000
            await call.write(refusal)
        await eventually(lambda: bool(node.registry.envoys[SHOP].error))
        await call.write(pb.DeltaDiscoveryRequest(type_url=CLUSTER, resource_names_subscribe=["y"]))
        await call.read()
    assert len(node.registry.envoys[SHOP].error) <= 1000


async def test_who_is_refused_again_and_again_does_not_fill_the_log(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    async with grpc.aio.insecure_channel(f"unix:{node.socket(SHOP)}") as channel:
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)
        for number in range(100):
            call = stub.DeltaAggregatedResources()
            request = pb.DeltaDiscoveryRequest(type_url=CLUSTER)
            request.node.id = f"{number}" + "x" * 10_000
            await call.write(request)
            assert await ended(call) == grpc.StatusCode.PERMISSION_DENIED
    said = [record.getMessage() for record in caplog.records if "refused node" in record.getMessage()]
    assert 1 <= len(said) <= 25
    assert max(map(len, said)) < 2000


async def test_a_client_that_asks_and_does_not_read_is_not_read_either(node: Node) -> None:
    big = {f"c{n}": versioned(Cluster(name="c" * 100_000)) for n in range(100)}
    node.sockets.publish(SHOP, {CLUSTER: big})
    async with stream(node.socket(SHOP), "epic-shop.web") as call:
        written = 0
        with contextlib.suppress(TimeoutError):
            while written < 40:
                request = pb.DeltaDiscoveryRequest(type_url=CLUSTER, response_nonce="x" * 1_000_000)
                async with asyncio.timeout(1):
                    await call.write(request)
                written += 1
        assert written < 20
        call.cancel()
