# SPDX-License-Identifier: Apache-2.0
"""What a control plane shows of itself to Prometheus."""

from __future__ import annotations

import asyncio
from collections import Counter
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from damage import write_newer
from stores import open_store

from epic.cache.store import CachedStore
from epic.control.metrics import ControlMetrics, queue_families
from epic.errors import NotWritable, StorageFull
from epic.exposition import exposition
from epic.heartbeats import Heartbeats
from epic.lifecycle.tunnels import Evidence
from epic.model.base import Metadata, now
from epic.model.resources import Account, Node
from epic.reconcile.lifecycle import Lifecycle
from epic.reconcile.service import ReconcilerService
from epic.reconcile.turn import LifecycleSettings
from epic.store.embedded.direct import DirectWriter
from epic.workqueue.backoff import Backoff
from epic.workqueue.queue import WorkQueue

NOTHING = Evidence(epic_node_known=False, epic_end=False, workload_end=True, applied=None, silent_since=now())


class Time:
    """Time passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> CachedStore:
    store = open_store(tmp_path / "epic.db")
    with store.transaction() as transaction:
        for name in ("a", "b"):
            transaction.create(Account(metadata=Metadata(name=name)))
        node = {"metadata": {"name": "epic1"}, "spec": {"address": "192.0.2.1"}}
        transaction.create(Node.model_validate(node))
    return store


def full(*_: object) -> None:
    raise StorageFull("the disk is full")


def lifecycle(store: CachedStore) -> Lifecycle:
    settings = LifecycleSettings(IPv4Network("100.64.0.0/24"), "1")
    return Lifecycle(store, settings, lambda _: NOTHING, Heartbeats())


def lines_of(metrics: ControlMetrics) -> list[str]:
    return asyncio.run(metrics.render()).splitlines()


def test_the_store_nodes_and_failures_are_shown(store: CachedStore) -> None:
    time = Time()
    heartbeats = Heartbeats(time)
    time.now += 9
    heartbeats.hear("epic1", now())
    time.now += 4
    lines = lines_of(ControlMetrics(store, heartbeats, {}, Counter({"runs": 2})))
    assert 'epic_control_part_failures_total{part="runs"} 2' in lines
    assert "epic_control_store_writable 1" in lines
    assert f"epic_control_store_revision {store.revision}" in lines
    assert 'epic_control_objects{kind="Account"} 2' in lines
    assert 'epic_control_objects{kind="GWRoute"} 0' in lines
    assert 'epic_control_unreadable_objects{kind="Account"} 0' in lines
    assert 'epic_control_node_silence_seconds{node="epic1"} 4.0' in lines


def test_objects_that_cannot_be_read_are_counted_apart(store: CachedStore) -> None:
    write_newer(store, store.get(Account, "", "b"))
    with store.transaction() as transaction:
        transaction.create(Account(metadata=Metadata(name="c")))
    lines = lines_of(ControlMetrics(store, Heartbeats(), {}, Counter()))
    assert 'epic_control_objects{kind="Account"} 2' in lines
    assert 'epic_control_unreadable_objects{kind="Account"} 1' in lines


def test_a_write_that_the_store_could_not_do_is_shown_until_one_can(
    store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = ControlMetrics(store, Heartbeats(), {}, Counter())
    monkeypatch.setattr(DirectWriter, "commit", full)
    with pytest.raises(NotWritable), store.transaction() as transaction:
        transaction.create(Account(metadata=Metadata(name="c")))
    assert "epic_control_store_writable 0" in lines_of(metrics)
    monkeypatch.undo()
    with store.transaction() as transaction:
        transaction.create(Account(metadata=Metadata(name="c")))
    assert "epic_control_store_writable 1" in lines_of(metrics)


def test_a_turn_that_hangs_grows_older(store: CachedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time()
    monkeypatch.setattr("time.monotonic", time)
    service = ReconcilerService(store, lifecycle(store))
    metrics = ControlMetrics(store, Heartbeats(), {"lives": service}, Counter())
    time.now += 61
    assert 'epic_control_turn_age_seconds{reconciler="lives"} 61.0' in lines_of(metrics)


def test_a_queue_shows_what_is_due_how_long_it_waits_and_what_is_repeated() -> None:
    time = Time()
    queue: WorkQueue[str] = WorkQueue(time, Backoff(first=0.5))
    for key in ("a", "b"):
        queue.add(key)
    queue.add("c", 60)
    time.now += 2
    queue.take(1)
    time.now += 0.02
    queue.failed("a")
    queue.done("a")
    lines = exposition(queue_families({"lives": queue.metrics()})).splitlines()
    for line in (
        'epic_control_queue_depth{reconciler="lives"} 1',
        'epic_control_queue_waiting{reconciler="lives"} 2',
        'epic_control_queue_adds_total{reconciler="lives"} 3',
        'epic_control_queue_retries_total{reconciler="lives"} 1',
        'epic_control_queue_latency_seconds_bucket{reconciler="lives",le="1.0"} 0',
        'epic_control_queue_latency_seconds_bucket{reconciler="lives",le="3.0"} 1',
        'epic_control_queue_latency_seconds_bucket{reconciler="lives",le="+Inf"} 1',
        'epic_control_queue_latency_seconds_sum{reconciler="lives"} 2.0',
        'epic_control_queue_latency_seconds_count{reconciler="lives"} 1',
        'epic_control_queue_work_seconds_bucket{reconciler="lives",le="0.03"} 1',
    ):
        assert line in lines


async def test_what_a_reconciler_measured_is_shown_turn_by_turn(store: CachedStore) -> None:
    service = ReconcilerService(store, lifecycle(store))
    metrics = ControlMetrics(store, Heartbeats(), {"lives": service}, Counter())
    task = asyncio.create_task(service.run())
    async with asyncio.timeout(60):
        while not service.measured.waiting:  # noqa: ASYNC110 - a turn's end has no event
            await asyncio.sleep(0.01)
    text = await metrics.render()
    task.cancel()
    assert 'epic_control_queue_waiting{reconciler="lives"} 1' in text, "the node is looked at again"
    assert 'epic_control_turn_age_seconds{reconciler="lives"} ' in text
