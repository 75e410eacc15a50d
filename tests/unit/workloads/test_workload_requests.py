# SPDX-License-Identifier: Apache-2.0
"""What a workload node may ask for on its stream: what costs others' time or memory ends it, with words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3 import discovery_pb2 as pb
from workload_site import Held, Site, eventually, piece, route, tunnel

from epic.ads.snapshot import CLUSTER, NODE_STATE, WORKLOAD_TUNNEL
from epic.workloads.requests import request_fault

NODE = {"id": "shop/c/n1"}
MALFORMED = {
    "another type": pb.DeltaDiscoveryRequest(type_url=CLUSTER),
    "a type of a megabyte": pb.DeltaDiscoveryRequest(type_url="x" * (1 << 20)),
    "no type": pb.DeltaDiscoveryRequest(),
    "a name": pb.DeltaDiscoveryRequest(type_url=WORKLOAD_TUNNEL, resource_names_subscribe=["7"]),
    "a name less": pb.DeltaDiscoveryRequest(type_url=WORKLOAD_TUNNEL, resource_names_unsubscribe=["7"]),
    "versions again": pb.DeltaDiscoveryRequest(
        type_url=WORKLOAD_TUNNEL, initial_resource_versions={"7": "v"}
    ),
    "a long answer": pb.DeltaDiscoveryRequest(type_url=WORKLOAD_TUNNEL, response_nonce="1" * (64 << 10)),
}
# Whoever says that has said nothing else before.
FIRST = ("another type", "a type of a megabyte", "no type", "a name", "a name less")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    site.put(route("shop"), piece("shop", "10.0.0.1"), tunnel("shop", 7))
    yield site
    site.store.close()


async def end_of_stream(site: Site, path: Path, *requests: pb.DeltaDiscoveryRequest) -> grpc.aio.AioRpcError:
    """How the server ends a stream on which these are sent."""
    async with site.channel(path) as channel:
        call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).DeltaAggregatedResources(timeout=60)
        for request in requests:
            await call.write(request)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            while await call.read() is not grpc.aio.EOF:
                pass
    return ended.value


@pytest.mark.parametrize("what", MALFORMED)
async def test_a_request_that_no_agent_sends_ends_the_stream_and_keeps_nobody_else(
    site: Site, what: str
) -> None:
    async with site.serving():
        path, held = await site.enrol("shop"), Held()
        begin = pb.DeltaDiscoveryRequest(node=NODE, type_url=WORKLOAD_TUNNEL)
        async with site.agent(path, held) as undisturbed:
            await eventually(lambda: held.revision >= 0)
            channel = undisturbed.channel
            ended = await end_of_stream(site, path, begin, MALFORMED[what])
            assert ended.code() == grpc.StatusCode.INVALID_ARGUMENT, ended
            assert len(ended.details() or "") < 1000
            assert undisturbed.channel is channel


@pytest.mark.parametrize("what", FIRST)
async def test_a_stream_that_begins_with_it_is_not_served(site: Site, what: str) -> None:
    request = pb.DeltaDiscoveryRequest(node=NODE)
    request.MergeFrom(MALFORMED[what])
    async with site.serving():
        ended = await end_of_stream(site, await site.enrol("shop"), request)
    assert ended.code() == grpc.StatusCode.INVALID_ARGUMENT, ended


def test_a_stream_begins_both_types_with_what_the_node_has() -> None:
    begun: set[str] = set()
    for type_url in (WORKLOAD_TUNNEL, NODE_STATE):
        versions = {str(number): "0" * 24 for number in range(10_000)}
        request = pb.DeltaDiscoveryRequest(type_url=type_url, initial_resource_versions=versions)
        assert request_fault(request, begun) is None
        begun.add(type_url)
    assert request_fault(pb.DeltaDiscoveryRequest(type_url=NODE_STATE, response_nonce="1"), begun) is None
