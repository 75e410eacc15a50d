# SPDX-License-Identifier: Apache-2.0
"""Server and client over a real gRPC connection on a Unix socket."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3 import discovery_pb2 as pb
from google.protobuf.wrappers_pb2 import StringValue

from epic.ads.delta import connection
from epic.ads.delta.client import DeltaClient
from epic.ads.delta.connection import NODE_ACCEPTED, Refusal
from epic.ads.delta.server import DeltaServer
from epic.ads.delta.unpaced import UnpacedStream
from epic.ads.snapshot import CLUSTER, LISTENER, Resources, versioned


class Recorder:
    """A listener that notes what it hears."""

    def __init__(self) -> None:
        self.acked: dict[tuple[str, str], dict[str, str]] = {}
        self.nacks: list[tuple[str, str, str]] = []
        self.gone: list[str] = []

    def on_ack(self, node_id: str, type_url: str, acked: dict[str, str]) -> None:
        self.acked[node_id, type_url] = acked

    def on_nack(self, node_id: str, type_url: str, message: str) -> None:
        self.nacks.append((node_id, type_url, message))

    def on_disconnect(self, node_id: str) -> None:
        self.gone.append(node_id)


class Holder:
    """A handler that keeps what it is given; it refuses the value "bad" and can be told to hang."""

    def __init__(self) -> None:
        self.state: dict[tuple[str, str], str] = {}
        self.had: dict[str, dict[str, str]] = {CLUSTER: {}, LISTENER: {}}
        self.calls: list[tuple[str, list[str], list[str]]] = []
        self.go = asyncio.Event()
        self.go.set()

    async def apply(self, type_url: str, updated: Resources, removed: Sequence[str]) -> str | None:
        await self.go.wait()
        self.calls.append((type_url, sorted(updated), list(removed)))
        values = {n: StringValue.FromString(r.body.value).value for n, r in updated.items()}
        if "bad" in values.values():
            return "bad is not good"
        self.state.update({(type_url, n): v for n, v in values.items()})
        self.had[type_url].update({name: resource.version for name, resource in updated.items()})
        for name in removed:
            self.state.pop((type_url, name), None)
            self.had[type_url].pop(name, None)
        return None

    def versions(self, type_url: str) -> Mapping[str, str]:
        return self.had[type_url]


class Keeping(Holder):
    """It refuses removals."""

    lets_go = False

    async def apply(self, type_url: str, updated: Resources, removed: Sequence[str]) -> str | None:
        if removed and not self.lets_go:
            return "not yet"
        return await super().apply(type_url, updated, removed)


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event
            await asyncio.sleep(0.01)


def clusters(**values: str) -> dict[str, Resources]:
    return {CLUSTER: {n: versioned(StringValue(value=v)) for n, v in values.items()}}


@asynccontextmanager
async def serving(socket: Path, servicer: DeltaServer) -> AsyncIterator[None]:
    server = grpc.aio.server()
    ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


@asynccontextmanager
async def following(socket: Path, node: str, handler: Holder) -> AsyncIterator[DeltaClient]:
    client = DeltaClient(
        lambda: grpc.aio.insecure_channel(f"unix:{socket}"), node, (CLUSTER, LISTENER), handler
    )
    task = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def everybody(node_id: str, context: object) -> Refusal | None:
    return None


async def test_a_client_follows_what_is_published(tmp_path: Path) -> None:
    heard, handler = Recorder(), Holder()
    servicer = DeltaServer(heard, everybody)
    async with serving(tmp_path / "s", servicer), following(tmp_path / "s", "n1", handler):
        servicer.publish("n1", clusters(a="1", b="1"))
        await eventually(lambda: handler.state == {(CLUSTER, "a"): "1", (CLUSTER, "b"): "1"})
        servicer.publish("n1", clusters(a="2"))
        await eventually(lambda: handler.state == {(CLUSTER, "a"): "2"})
        await eventually(lambda: heard.acked["n1", CLUSTER].keys() == {"a"})
        assert servicer.nodes == {"n1"}
    await eventually(lambda: heard.gone == ["n1"])


async def test_a_node_that_is_not_published_yet_is_answered_later(tmp_path: Path) -> None:
    handler = Holder()
    servicer = DeltaServer(Recorder(), everybody)
    async with serving(tmp_path / "s", servicer), following(tmp_path / "s", "n1", handler):
        await eventually(lambda: servicer.nodes)
        assert handler.calls == []
        servicer.publish("n1", {})
        await eventually(lambda: len(handler.calls) == 2)


async def test_a_refusal_reaches_the_listener_and_the_client_keeps_what_it_had(tmp_path: Path) -> None:
    heard, handler = Recorder(), Holder()
    servicer = DeltaServer(heard, everybody)
    async with serving(tmp_path / "s", servicer), following(tmp_path / "s", "n1", handler):
        servicer.publish("n1", clusters(a="1"))
        await eventually(lambda: handler.state)
        servicer.publish("n1", clusters(a="bad"))
        await eventually(lambda: heard.nacks == [("n1", CLUSTER, "bad is not good")])
        assert handler.state == {(CLUSTER, "a"): "1"}
        servicer.publish("n1", clusters(a="3"))
        await eventually(lambda: handler.state == {(CLUSTER, "a"): "3"})


async def test_what_a_client_refuses_to_let_go_of_it_is_asked_to_again_though_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_INSIST_SECONDS", 0.01)
    heard, handler = Recorder(), Keeping()
    servicer = DeltaServer(heard, everybody, new_stream=UnpacedStream)
    async with serving(tmp_path / "s", servicer), following(tmp_path / "s", "n1", handler):
        servicer.publish("n1", clusters(a="1"))
        await eventually(lambda: handler.state)
        servicer.publish("n1", clusters())
        await eventually(lambda: len(heard.nacks) > 2)
        handler.lets_go = True
        await eventually(lambda: not handler.state)


async def test_a_snapshot_that_is_changed_in_place_is_sent_by_what_differs(tmp_path: Path) -> None:
    handler, wanted = Holder(), clusters(a="1", b="1")
    servicer = DeltaServer(Recorder(), everybody, new_stream=UnpacedStream)
    async with serving(tmp_path / "s", servicer), following(tmp_path / "s", "n1", handler):
        servicer.publish("n1", wanted)
        await eventually(lambda: len(handler.state) == 2)
        resources = wanted[CLUSTER]
        assert isinstance(resources, dict)
        resources.update(clusters(b="2", c="2")[CLUSTER])
        servicer.publish("n1", wanted, {CLUSTER: {"b"}})
        await eventually(lambda: handler.state == {(CLUSTER, "a"): "1", (CLUSTER, "b"): "2"})
        servicer.publish("n1", dict(wanted) | clusters(a="1", b="2", c="2"))
        await eventually(lambda: len(handler.state) == 3)


async def test_a_client_reconnects_and_gets_only_the_difference(tmp_path: Path) -> None:
    handler = Holder()
    async with following(tmp_path / "s", "n1", handler):
        first = DeltaServer(Recorder(), everybody)
        first.publish("n1", clusters(a="1", b="1", c="1"))
        async with serving(tmp_path / "s", first):
            await eventually(lambda: len(handler.calls) == 2)
        handler.calls.clear()
        second = DeltaServer(Recorder(), everybody)
        second.publish("n1", clusters(a="1", b="2"))
        async with serving(tmp_path / "s", second):
            await eventually(lambda: handler.state == {(CLUSTER, "a"): "1", (CLUSTER, "b"): "2"})
    assert handler.calls == [(CLUSTER, ["b"], []), (LISTENER, [], []), (CLUSTER, [], ["c"])]


async def test_a_client_that_hangs_does_not_hold_up_another(tmp_path: Path) -> None:
    stuck, quick = Holder(), Holder()
    stuck.go.clear()
    servicer = DeltaServer(Recorder(), everybody)
    async with (
        serving(tmp_path / "s", servicer),
        following(tmp_path / "s", "n1", stuck),
        following(tmp_path / "s", "n2", quick),
    ):
        for value in ("1", "2", "3"):
            servicer.publish("n1", clusters(a=value))
            servicer.publish("n2", clusters(a=value))
            await eventually(lambda: quick.state == {(CLUSTER, "a"): value})  # noqa: B023
        stuck.go.set()
        await eventually(lambda: stuck.state == {(CLUSTER, "a"): "3"})


class Ending(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):  # type: ignore[misc]
    """A server that ends every stream once a response is answered, in good order and otherwise by turns."""

    def __init__(self) -> None:
        self.streams = 0

    async def DeltaAggregatedResources(  # noqa: N802 - the name that gRPC calls
        self, request_iterator: AsyncIterator[pb.DeltaDiscoveryRequest], context: grpc.aio.ServicerContext
    ) -> None:
        self.streams += 1
        await context.send_initial_metadata(((NODE_ACCEPTED, "true"),))
        requests = aiter(request_iterator)
        subscriptions = [await anext(requests), await anext(requests)]
        await context.write(pb.DeltaDiscoveryResponse(type_url=subscriptions[0].type_url, nonce="1"))
        await anext(requests)
        if self.streams % 2:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "later")


async def test_streams_that_the_server_ended_leave_nothing_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    servicer = Ending()
    async with serving(tmp_path / "s", servicer), following(tmp_path / "s", "n1", Holder()):
        await eventually(lambda: servicer.streams > 3)
    gc.collect()
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_a_node_that_is_not_authorized_is_refused(tmp_path: Path) -> None:
    handler = Holder()
    servicer = DeltaServer(
        Recorder(), lambda node_id, _: None if node_id == "n1" else Refusal("not your name")
    )
    servicer.publish("n2", clusters(a="1"))
    async with serving(tmp_path / "s", servicer), following(tmp_path / "s", "n2", handler):
        await asyncio.sleep(0.3)
        assert handler.calls == []
        assert servicer.nodes == frozenset()


async def test_a_client_with_a_stream_too_many_loses_its_oldest_and_nobody_else_does(tmp_path: Path) -> None:
    def client_of(context: grpc.aio.ServicerContext) -> str:
        return str(dict(context.invocation_metadata() or ())["client"])

    servicer = DeltaServer(Recorder(), everybody, client_of=client_of, most_streams=2)
    servicer.publish("n1", clusters(a="1"))
    async with (
        serving(tmp_path / "s", servicer),
        grpc.aio.insecure_channel(f"unix:{tmp_path / 's'}") as channel,
    ):
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)

        async def opened(client: str) -> grpc.aio.StreamStreamCall:
            call = stub.DeltaAggregatedResources(metadata=(("client", client),))
            request = pb.DeltaDiscoveryRequest(type_url=CLUSTER)
            request.node.id = "n1"
            await call.write(request)
            assert (await call.read()).resources
            return call

        silent = stub.DeltaAggregatedResources(metadata=(("client", "often"),))
        await eventually(lambda: servicer._streams)
        other, second = await opened("once"), await opened("often")
        assert not silent.done()
        third = await opened("often")
        assert await silent.code() == grpc.StatusCode.PERMISSION_DENIED
        fourth = await opened("often")
        assert await second.code() == grpc.StatusCode.PERMISSION_DENIED
        assert await second.details() == "this client has opened newer streams"
        assert not any(call.done() for call in (other, third, fourth))
    await eventually(lambda: not servicer._streams)
