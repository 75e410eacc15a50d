# SPDX-License-Identifier: Apache-2.0
"""Streams of workload nodes' tunnels: whom a change wakes, what is shared, and how many there may be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import httpx
import pytest
from api_requests import API, PROXIES, Events, proxy_body, route_body, slice_body

from epic.api.context import Context
from epic.api.tunnel import node_lists, streams
from epic.api.tunnel.list_reply import Reply, written
from epic.api.tunnel.node_lists import AccountLists
from epic.api.tunnel.streams import TooManyStreams
from epic.cache.store import CachedStore
from epic.client import EpicClient
from epic.live import Place
from epic.model.base import Metadata, now
from epic.model.resources import Account, GWRoute, Node, Tunnel
from epic.tunnels import WorkloadNode

ROUTES, SLICES = f"{API}/accounts/root/routes", f"{API}/accounts/root/slices"
TUNNELS = f"{API}/accounts/root/tunnels"
N1, N2 = WorkloadNode("c1", "n1"), WorkloadNode("c1", "n2")
MANY = 1000


@pytest.fixture
def context(store: CachedStore) -> Context:
    return Context(store=store, inside_pool=IPv4Network("100.64.0.0/10"), run_events=Events())


@pytest.fixture
async def lists(context: Context) -> AsyncIterator[AccountLists]:
    with context.workload_lists.of("root") as found:
        yield found


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Reply]:
    """The lists that were written."""
    found: list[Reply] = []

    def counted(*arguments: Any) -> Reply:
        found.append(written(*arguments))
        return found[-1]

    monkeypatch.setattr(node_lists, "written", counted)
    return found


async def publish(client: httpx.AsyncClient, nodes: tuple[str, ...] = ("n1", "n2")) -> None:
    for path, body in ((PROXIES, proxy_body()), (ROUTES, route_body()), (SLICES, slice_body(nodes=nodes))):
        assert (await client.post(path, json=body)).status_code == 302


async def test_what_is_asked_for_anew_is_not_let_go_of_when_the_time_of_what_was_before_is_up(
    context: Context,
) -> None:
    lists = context.workload_lists
    with lists.of("root") as first:
        pass
    lists._let_go(first)
    with lists.of("root") as used:
        assert used is not first
        lists._let_go(first)
        with lists.of("root") as same:
            assert same is used
        assert lists._watcher is not None


async def taken(stream: AsyncIterator[Iterator[bytes]]) -> dict[str, Any]:
    """The next list of a stream."""
    async with asyncio.timeout(60):
        text = b"".join(await anext(stream)).decode()
    assert text.startswith("event: tunnels\ndata: ")
    assert text.endswith("\n\n")
    found: dict[str, Any] = json.loads(text.partition("data: ")[2])
    return found


async def heard(context: Context) -> None:
    """All that was written so far was looked at."""
    async with asyncio.timeout(60):
        with context.workload_lists.of("root") as found:
            while found.revision < context.store.revision:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)


async def test_a_stream_sends_tunnels_at_once_and_on_each_change(
    tenant: httpx.AsyncClient, store: CachedStore, lists: AccountLists
) -> None:
    stream = lists.follow(N1, MANY)
    assert (await taken(stream))["tunnels"] == []
    await publish(tenant, ("n1",))
    told = await taken(stream)
    while not (told["tunnels"] and told["tunnels"][0]["endpoints"]):
        told = await taken(stream)
    assert told["tunnels"] == (await tenant.get(TUNNELS, params=N1_QUERY)).json()["tunnels"]
    await tenant.delete(f"{SLICES}/E1")
    last = await taken(stream)
    assert last["tunnels"] == []
    deletions = [tunnel.metadata.resource_version for tunnel in store.list(Tunnel) if tunnel.deleting]
    assert last["revision"] >= max(deletions) == last["deleted"] > told["revision"]
    await stream.aclose()


N1_QUERY = {"cluster": "c1", "node": "n1"}


async def test_a_pod_that_moves_wakes_nobody_but_its_nodes(
    tenant: httpx.AsyncClient, context: Context, lists: AccountLists, made: list[Reply]
) -> None:
    nodes = tuple(f"n{number}" for number in range(1, 31))
    await publish(tenant, nodes)
    open_streams = {name: lists.follow(WorkloadNode("c1", name), MANY) for name in nodes}
    for stream in open_streams.values():
        await taken(stream)
    await heard(context)
    made.clear()
    body = slice_body(nodes=nodes)
    body["slice"]["spec"]["endpoints"][0]["nodeName"] = "n2"
    assert (await tenant.put(f"{SLICES}/E1", json=body)).status_code == 302
    told = await taken(open_streams["n2"])
    assert told["tunnels"][0]["endpoints"] == ["10.1.2.1", "10.1.2.2"]
    await taken(open_streams["n1"])
    await heard(context)
    assert len(made) == 2
    for stream in open_streams.values():
        await stream.aclose()


async def test_streams_that_ask_for_the_same_share_what_is_written(
    tenant: httpx.AsyncClient, lists: AccountLists, made: list[Reply], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "OF_NODE", 50)
    await publish(tenant)
    open_streams = [lists.follow(N1, MANY) for _ in range(50)]
    async with asyncio.timeout(60):
        first = await asyncio.gather(*(anext(stream) for stream in open_streams))
    assert len(made) == 1
    assert len({b"".join(pieces) for pieces in first}) == 1
    await tenant.delete(f"{SLICES}/E1")
    second = await asyncio.gather(*(taken(stream) for stream in open_streams))
    assert not any(reply["tunnels"] for reply in second)
    assert len(made) < 6, "once for each change"
    for stream in open_streams:
        await stream.aclose()


async def test_reports_and_tunnels_of_other_nodes_wake_nobody(
    tenant: httpx.AsyncClient, store: CachedStore, context: Context, lists: AccountLists, made: list[Reply]
) -> None:
    await publish(tenant)
    stream = lists.follow(N1, MANY)
    await taken(stream)
    await heard(context)
    made.clear()
    waiting = asyncio.create_task(taken(stream))
    for problem in "abcde":
        with store.transaction() as transaction:
            node = transaction.get(Node, "", "epic1")
            status = node.status.model_copy(update={"problems": (problem,)})
            transaction.update(node.model_copy(update={"status": status}))
            (other, *_) = [t for t in transaction.list(Tunnel) if t.spec.node_name != "n1"]
            spec = other.spec.model_copy(update={"signing_since": now()})
            transaction.update(other.model_copy(update={"spec": spec}))
        await heard(context)
    assert made == []
    with store.transaction() as transaction:
        node = transaction.get(Node, "", "epic1")
        moved = node.spec.model_copy(update={"address": IPv4Address("192.0.2.77")})
        transaction.update(node.model_copy(update={"spec": moved}))
    assert "192.0.2.77" in {t["epic-address"] for t in (await waiting)["tunnels"]}
    assert len(made) == 1
    await stream.aclose()


async def test_all_accounts_have_one_watch_of_the_store(
    context: Context, store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    watch = store.watch_batches

    def counted(since: int) -> Any:
        begun.append(since)
        return watch(since)

    monkeypatch.setattr(store, "watch_batches", counted)
    with context.workload_lists.of("root") as first, context.workload_lists.of("other") as second:
        open_streams = [found.follow(node, MANY) for found in (first, second) for node in (N1, N2)]
        for stream in open_streams:
            await taken(stream)
        assert len(begun) == 1
        for stream in open_streams:
            await stream.aclose()


async def test_after_a_watch_that_failed_everything_is_read_anew(
    tenant: httpx.AsyncClient,
    store: CachedStore,
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("epic.api.tunnel.followed._PAUSE_SECONDS", 0)
    watch, failed = store.watch_batches, asyncio.Event()

    async def failing(since: int) -> AsyncIterator[Any]:
        await failed.wait()
        monkeypatch.setattr(store, "watch_batches", watch)
        raise RuntimeError("deletions are forgotten")
        yield

    monkeypatch.setattr(store, "watch_batches", failing)
    with context.workload_lists.of("root") as lists:
        stream = lists.follow(N1, MANY)
        assert (await taken(stream))["tunnels"] == []
        await publish(tenant)
        failed.set()
        assert (await taken(stream))["tunnels"]
        await stream.aclose()


async def test_what_changes_while_everything_is_read_is_not_missed(
    tenant: httpx.AsyncClient, store: CachedStore, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(tenant)
    read = node_lists._read

    def slow(*arguments: Any) -> Any:
        found = read(*arguments)
        with store.transaction() as transaction:
            transaction.delete(GWRoute, "root", "R1")
        return found

    monkeypatch.setattr(node_lists, "_read", slow)
    with context.workload_lists.of("root") as lists:
        stream = lists.follow(N1, MANY)
        told = await taken(stream)
        while told["tunnels"][0]["endpoints"]:
            told = await taken(stream)
        await stream.aclose()


async def test_what_a_node_is_told_first_is_read_after_it_is_noted_that_it_may_be(
    tenant: httpx.AsyncClient, store: CachedStore, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(tenant)
    (gone, *_) = [tunnel for tunnel in store.list(Tunnel) if tunnel.spec.node_name == "n1"]
    note = context.live.note_listing

    def released_before(place: Place) -> None:
        # Nobody waits for a node that was told nothing.
        assert not context.live.is_listed(place)
        with store.transaction() as transaction:
            transaction.delete(Tunnel, "root", gone.name)
        note(place)

    monkeypatch.setattr(context.live, "note_listing", released_before)
    reply = (await tenant_of(context, N1))["tunnels"]
    assert [told["id"] for told in reply] == [
        int(t.name) for t in store.list(Tunnel) if t.spec.node_name == "n1"
    ]
    assert int(gone.name) not in {told["id"] for told in reply}


async def tenant_of(context: Context, workload: WorkloadNode) -> dict[str, Any]:
    with context.workload_lists.of("root") as lists:
        found: dict[str, Any] = json.loads(b"".join(await lists.read(workload)))
    return found


async def test_who_is_slow_gets_the_newest_list_after_the_one_that_it_takes(
    tenant: httpx.AsyncClient, context: Context, lists: AccountLists
) -> None:
    await publish(tenant)
    stream = lists.follow(N1, MANY)
    first = await anext(stream)
    for count in range(2, 6):
        body = slice_body(nodes=("n1",) * count)
        assert (await tenant.put(f"{SLICES}/E1", json=body)).status_code == 302
        await heard(context)
    assert b"10.1.2.1" in b"".join(first)
    assert len((await taken(stream))["tunnels"][0]["endpoints"]) == 5
    await stream.aclose()


async def test_old_lists_that_nobody_takes_are_let_go_of_and_their_streams_end(
    tenant: httpx.AsyncClient, context: Context, lists: AccountLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epic.api.tunnel.list_reply._PIECE_BYTES", 100)
    monkeypatch.setattr(streams, "_SUPERSEDED_BYTES", 0)
    await publish(tenant)
    slow, quick = lists.follow(N1, MANY), lists.follow(N1, MANY)
    pieces = await anext(slow)
    next(pieces)
    await taken(quick)
    body = slice_body(nodes=("n1", "n1", "n2"))
    assert (await tenant.put(f"{SLICES}/E1", json=body)).status_code == 302
    await taken(quick)
    assert list(pieces) == [], "nothing of the old list is left"
    assert await anext(slow, None) is None
    assert len(lists.streams) == 1
    await quick.aclose()


async def test_old_lists_that_are_read_once_are_let_go_of_without_any_stream(
    tenant: httpx.AsyncClient, lists: AccountLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epic.api.tunnel.list_reply._PIECE_BYTES", 100)
    monkeypatch.setattr(streams, "_SUPERSEDED_BYTES", 0)
    await publish(tenant)
    slow, same = await lists.read(N1), await lists.read(N1)
    next(slow), next(same)
    body = slice_body(nodes=("n1", "n1", "n2"))
    assert (await tenant.put(f"{SLICES}/E1", json=body)).status_code == 302
    newest = await lists.read(N1)
    assert list(slow) == list(same) == [], "nothing of the old list is left"
    json.loads(b"".join(newest))


async def test_a_node_has_four_streams_and_a_fifth_ends_the_first(
    tenant: httpx.AsyncClient, lists: AccountLists
) -> None:
    open_streams = [lists.follow(N1, MANY) for _ in range(5)]
    first = open_streams[0]
    await taken(first)
    ends = asyncio.create_task(anext(first, None))
    for stream in open_streams[1:]:
        await taken(stream)
    async with asyncio.timeout(60):
        assert await ends is None
    assert len(lists.streams) == 4
    for stream in open_streams:
        await stream.aclose()
    assert len(lists.streams) == 0


async def test_more_streams_than_an_account_may_have_are_refused_but_to_those_that_have_one(
    lists: AccountLists,
) -> None:
    one, two = lists.follow(N1, 2), lists.follow(N2, 2)
    await taken(one)
    await taken(two)
    with pytest.raises(TooManyStreams, match="account 'root' has 2 streams of tunnels open"):
        lists.streams.check_room(WorkloadNode("c1", "n3"), 2)
    lists.streams.check_room(N1, 2)
    again = lists.follow(N1, 2)
    await taken(again)
    assert await anext(one, None) is None
    assert await anext(lists.follow(WorkloadNode("c1", "n3"), 2), None) is None
    for stream in (one, two, again):
        await stream.aclose()


def test_an_agents_client_follows_a_nodes_tunnels(live_api: Any) -> None:
    with live_api.store.transaction() as transaction:
        transaction.create(Account(metadata=Metadata(name="root")))
    path = f"{API}/accounts/root/tunnels?cluster=c1&node=n1"
    with EpicClient(live_api.url, live_api.username, live_api.password) as client:
        nothing = {"revision": live_api.store.revision, "deleted": 0, "tunnels": []}
        assert client.get(path) == nothing
        with client.watch(f"{path}&watch=true") as watch:
            assert next(watch) == nothing


async def test_the_refusal_is_a_reply_that_says_when_to_come_again(
    tenant: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise TooManyStreams("root", 500)

    monkeypatch.setattr(streams.Streams, "check_room", full)
    reply = await tenant.get(TUNNELS, params={**N1_QUERY, "watch": "true"})
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "10")
    assert "workloadNodeLimit" in reply.json()["error"]
