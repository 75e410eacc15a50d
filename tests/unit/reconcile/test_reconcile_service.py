# SPDX-License-Identifier: Apache-2.0
"""The service of lives: woken by changes, failing alone, beginning again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from disk_troubles import TROUBLES
from stores import open_store

from epic.cache.store import CachedStore
from epic.heartbeats import Heartbeats
from epic.lifecycle.tunnels import Evidence
from epic.model.base import now
from epic.model.resources import GWProxy, LBServiceGroup, Node
from epic.model.runs import Run
from epic.reconcile import turn
from epic.reconcile.lifecycle import Lifecycle
from epic.reconcile.service import ReconcilerService
from epic.reconcile.tunnels.tunnelling import Budget
from epic.reconcile.turn import LifecycleSettings, Turn
from epic.reconcile.world import Key, World
from epic.store.interface import Transaction
from epic.supervise import keep_running

NOTHING = Evidence(
    epic_node_known=False, epic_end=False, workload_end=True, applied=None, silent_since=datetime.now(UTC)
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CachedStore]:
    store = open_store(tmp_path / "epic.db")
    with store.transaction() as transaction:
        for name in ("e1", "e2"):
            spec = {"address": f"192.0.2.{name[1]}"}
            transaction.create(Node.model_validate({"metadata": {"name": name}, "spec": spec}))
        group = {"metadata": {"name": "g", "namespace": "a"}, "spec": {"service-prefix": "p"}}
        transaction.create(LBServiceGroup.model_validate(group))
    yield store
    store.close()


def lifecycle(store: CachedStore) -> Lifecycle:
    settings = LifecycleSettings(IPv4Network("100.64.0.0/24"), "1")
    return Lifecycle(store, settings, lambda _: NOTHING, Heartbeats())


def create(store: CachedStore, name: str) -> None:
    with store.transaction() as transaction:
        transaction.create(
            GWProxy.model_validate({"metadata": {"name": name, "namespace": "a"}, "spec": {"group": "g"}})
        )


def nodes_of(store: CachedStore, name: str) -> set[str]:
    proxy = store.find(GWProxy, "a", name)
    return {i.node for i in proxy.status.instances} if proxy else set()


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - another thread makes it true
            await asyncio.sleep(0.01)


@pytest.fixture
async def serving(store: CachedStore) -> object:
    service = ReconcilerService(store, lifecycle(store))
    task = asyncio.create_task(keep_running("lives", service.run, first_delay=0.02))
    yield service
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_gateway_that_has_too_few_instances_gets_them_with_a_run_a_node(
    store: CachedStore, serving: object
) -> None:
    create(store, "u1")
    await eventually(lambda: nodes_of(store, "u1") == {"e1", "e2"})
    assert [run.spec.nodes for run in store.list(Run)] == [("e1",), ("e2",)]


def test_a_gateway_for_which_no_inside_address_is_left_asks_for_no_run(store: CachedStore) -> None:
    settings = LifecycleSettings(IPv4Network("100.64.0.0/32"), "1")
    create(store, "u1")
    full = Lifecycle(store, settings, lambda _: NOTHING, Heartbeats())
    full.begin()
    full.work()
    assert nodes_of(store, "u1") == set()
    assert store.list(Run) == []


async def test_a_gateway_that_cannot_be_led_holds_up_no_other_and_is_led_later(
    store: CachedStore, serving: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead, broken = Turn._gateway, {"u1"}

    def failing(self: Turn, proxy: GWProxy) -> None:
        if proxy.name in broken:
            raise ValueError("no such thing")
        lead(self, proxy)

    monkeypatch.setattr(Turn, "_gateway", failing)
    create(store, "u1")
    create(store, "u2")
    await eventually(lambda: nodes_of(store, "u2") == {"e1", "e2"})
    assert nodes_of(store, "u1") == set()
    broken.clear()
    await eventually(lambda: nodes_of(store, "u1") == {"e1", "e2"})


async def test_a_store_that_fails_for_a_while_ends_nothing(
    store: CachedStore, serving: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, failures = store._changes, iter([OSError("disk I/O error")] * 3)

    def failing(since: int) -> object:
        for error in failures:
            raise error
        return changes(since)

    monkeypatch.setattr(store, "_changes", failing)
    create(store, "u1")
    await eventually(lambda: nodes_of(store, "u1") == {"e1", "e2"})


def test_a_gateway_that_waits_for_an_address_goes_on_with_the_rest(store: CachedStore) -> None:
    settings = LifecycleSettings(IPv4Network("100.64.0.0/30"), "1")
    work = Lifecycle(store, settings, lambda _: NOTHING, Heartbeats())
    for name in ("u1", "u2"):
        create(store, name)
    work.begin()
    work.work()
    assert sorted(map(len, (nodes_of(store, "u1"), nodes_of(store, "u2")))) == [0, 2]
    with store.transaction() as transaction:
        for proxy in transaction.list(GWProxy):
            metadata = proxy.metadata.model_copy(update={"deletion_timestamp": now()})
            transaction.update(proxy.model_copy(update={"metadata": metadata}))
    work.begin()
    work.work()
    (left,) = store.list(GWProxy)
    assert {i.phase for i in left.status.instances} == {"Draining"}


def test_that_there_is_no_room_is_logged_when_it_begins_not_with_each_try(
    store: CachedStore, caplog: pytest.LogCaptureFixture
) -> None:
    work = Lifecycle(
        store, LifecycleSettings(IPv4Network("100.64.0.0/32"), "1"), lambda _: NOTHING, Heartbeats()
    )
    create(store, "u1")
    for _ in range(4):
        work.begin()
        work.work()
    (record,) = [r for r in caplog.records if r.name.startswith("epic.")]
    assert record.getMessage().startswith(
        "gateway a.u1: no room for 2 instances: the pool of inside addresses has not enough free addresses; "
    )


def test_gateways_that_fail_again_and_again_do_not_have_everything_read_anew(
    store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead = Turn._gateway

    def failing(self: Turn, proxy: GWProxy) -> None:
        lead(self, proxy)
        raise ValueError("no such thing")

    for number in range(20):
        create(store, f"u{number}")
    work = lifecycle(store)
    work.begin()
    monkeypatch.setattr(Turn, "_gateway", failing)
    made: list[World] = []
    init = World.__init__

    def counted(self: World) -> None:
        made.append(self)
        init(self)

    monkeypatch.setattr(World, "__init__", counted)
    for _ in range(3):
        for number in range(20):
            work.queue.add(Key("gateway", "a", f"u{number}"))
        work.work()
    assert not made, "everything was read in the beginning"
    assert not any(nodes_of(store, f"u{number}") for number in range(20))
    monkeypatch.setattr(Turn, "_gateway", lead)
    for number in range(20):
        work.queue.add(Key("gateway", "a", f"u{number}"))
    work.work()
    assert all(nodes_of(store, f"u{number}") == {"e1", "e2"} for number in range(20))


def test_while_nothing_can_be_written_keys_are_not_tried_one_by_one(
    store: CachedStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    begun: list[int] = []
    do = Turn.do

    def counted(self: Turn, key: Key) -> None:
        begun.append(1)
        do(self, key)

    monkeypatch.setattr(Turn, "do", counted)
    for number in range(30):
        create(store, f"u{number}")
    work = lifecycle(store)
    work.begin()
    with TROUBLES["READONLY"](store):
        work.work()
    assert len(begun) <= 50
    assert not any(nodes_of(store, f"u{number}") for number in range(30))
    assert len([r for r in caplog.records if r.name.startswith("epic.")]) == 1
    work.begin()
    while work.wait() == 0:
        work.work()
    assert all(nodes_of(store, f"u{number}") == {"e1", "e2"} for number in range(30))


async def test_a_full_disk_ends_no_service_and_fills_no_log(
    store: CachedStore, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    async def writing() -> None:
        nonlocal tries
        async with asyncio.TaskGroup() as tasks:
            tries += 1
            tasks.create_task(asyncio.to_thread(create, store, "u1"))

    with TROUBLES["READONLY"](store):
        task = asyncio.create_task(keep_running("it", writing, first_delay=0.01))
        await eventually(lambda: tries >= 4)
    await eventually(lambda: store.find(GWProxy, "a", "u1"))
    task.cancel()
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert said[0].startswith(f"{store.location.title} cannot be written: ")
    assert not [line for line in said if "NotWritable" in line]


def test_a_turn_plans_the_tunnels_of_an_account_once(
    store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[tuple[str, set[str]]] = []
    real = turn.work_off

    def watched(
        transaction: Transaction, world: World, account: str, names: set[str], budget: Budget, after: str
    ) -> str | None:
        planned.append((account, set(names)))
        return real(transaction, world, account, names, budget, after)

    monkeypatch.setattr(turn, "work_off", watched)
    work = lifecycle(store)
    for name in ("u1", "u2", "u3"):
        create(store, name)
    work.begin()
    work.work()
    assert planned == [("a", {"u1", "u2", "u3"})]


async def test_a_fault_that_repeats_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    times = 0

    async def failing() -> None:
        nonlocal times
        times += 1
        raise OSError("disk is full")

    with caplog.at_level(logging.ERROR):
        task = asyncio.create_task(keep_running("it", failing, first_delay=0.01))
        await eventually(lambda: times >= 4)
        task.cancel()
    assert [record.getMessage() for record in caplog.records] == ["it: begins again in 0.0 s"]
