# SPDX-License-Identifier: Apache-2.0
"""What the streams of an account keep together: one that would pass the limit is ended, and no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3 import discovery_pb2 as pb
from workload_site import ACCOUNTS, Held, Site, eventually, piece, route, tunnel

from epic.ads.snapshot import NODE_STATE
from epic.workloads import memory

BASE_BYTES = 4 << 20
LIMIT = BASE_BYTES + (2000 << 10)
# Two streams of an account may have named so many, of 232 bytes each, and no third.
NAMES = 12_000
Call = grpc.aio.StreamStreamCall[pb.DeltaDiscoveryRequest, pb.DeltaDiscoveryResponse]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(memory, "_BASE_BYTES", BASE_BYTES)
    site = Site(tmp_path)
    for number, account in enumerate(ACCOUNTS):
        site.put(route(account), piece(account, f"10.{number}.0.1"), tunnel(account, 7 + number))
    yield site
    site.store.close()


def naming(number: int, node: str = "n1") -> pb.DeltaDiscoveryRequest:
    """The first request of a node that says that it has so many: of a type of which none is removed."""
    had = {f"{name:08x}": f"{name:024x}" for name in range(number)}
    return pb.DeltaDiscoveryRequest(
        node={"id": f"shop/c/{node}"}, type_url=NODE_STATE, initial_resource_versions=had
    )


@asynccontextmanager
async def stream(site: Site, path: Path, request: pb.DeltaDiscoveryRequest) -> AsyncIterator[Call]:
    async with site.channel(path) as channel:
        call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).DeltaAggregatedResources()
        await call.write(request)
        yield call
        call.cancel()


async def refusal(call: Call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async with asyncio.timeout(60):
            while await call.read() is not grpc.aio.EOF:
                pass
    return refused.value.code(), refused.value.details() or ""


async def test_a_stream_that_would_pass_its_accounts_limit_is_ended_and_no_other(site: Site) -> None:
    async with site.serving():
        paths = {node: await site.enrol("shop", node) for node in ("n1", "n2", "n3")}
        other, little = Held(), Held()
        async with (
            site.agent(await site.enrol("bank"), other, "bank/c/n1") as bank,
            site.agent(paths["n3"], little, "shop/c/n3") as small,
            stream(site, paths["n1"], naming(NAMES)) as first,
            stream(site, paths["n1"], naming(NAMES)) as second,
        ):
            for call in (first, second):
                assert (await call.read()).resources
            await eventually(lambda: other.revision >= 0 and little.revision >= 0)
            channels = bank.channel, small.channel
            async with stream(site, paths["n2"], naming(NAMES, "n2")) as third:
                code, words = await refusal(third)
            assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "account 'shop'" in words
            assert str(LIMIT) in words
            size = int(words.split(" would keep ")[1].split()[0])
            assert 3 * 232 * NAMES < size < 3 * 300 * NAMES
            site.put(tunnel("shop", 20, node="n3"), tunnel("shop", 21), tunnel("bank", 22))
            await eventually(lambda: "20" in little.tunnels and "22" in other.tunnels)
            assert (bank.channel, small.channel) == channels
            assert not first.done()
            assert not second.done()


async def test_what_an_ended_stream_kept_is_free_for_others(site: Site) -> None:
    async with site.serving():
        path = await site.enrol("shop")
        for _ in range(5):
            async with stream(site, path, naming(NAMES)) as call:
                assert (await call.read()).resources
            await eventually(lambda: not site.service.nodes)


async def test_no_stream_that_keeps_little_is_ended_for_what_others_keep(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_BASE_BYTES", 0)
    monkeypatch.setattr(memory, "_BYTES_OF_TUNNEL", 0)
    async with site.serving():
        path, held = await site.enrol("shop"), Held()
        async with site.agent(path, held) as client, stream(site, path, naming(1000)) as large:
            code, _ = await refusal(large)
            assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
            await eventually(lambda: held.revision >= 0)
            channel = client.channel
            site.put(tunnel("shop", 20))
            await eventually(lambda: "20" in held.tunnels)
            assert client.channel is channel


async def test_streams_that_begin_at_once_keep_no_more_than_one_after_the_other(site: Site) -> None:
    async with site.serving():
        nodes = ["n1", "n2"]
        paths = [await site.enrol("shop", node) for node in nodes]

        async def ends(path: Path, node: str) -> grpc.StatusCode | None:
            async with stream(site, path, naming(NAMES, node)) as call:
                reading = asyncio.create_task(refusal(call))
                await asyncio.wait(
                    [reading, asyncio.create_task(enough.wait())], return_when="FIRST_COMPLETED"
                )
                if reading.done():
                    refused.append(node)
                    if len(refused) == 4:
                        enough.set()
                    return reading.result()[0]
                reading.cancel()
                return None

        refused: list[str] = []
        enough = asyncio.Event()
        pairs = [(path, node) for path, node in zip(paths, nodes, strict=True) for _ in range(3)]
        found = await asyncio.gather(*(ends(path, node) for path, node in pairs))
    assert found.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 4
    assert found.count(None) == 2


def test_a_node_with_all_tunnels_of_its_account_may_come_four_times() -> None:
    named = 60_000 * 240
    assert memory.keep_refusal("shop", 60_000, named, 4 * named) is None
    assert memory.keep_refusal("shop", 60_000, named, (32 << 20) + (60_000 << 10) + 1) is not None
