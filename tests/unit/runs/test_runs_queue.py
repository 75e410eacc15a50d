# SPDX-License-Identifier: Apache-2.0
"""The queue: coalescing, retries, recovery, conditions of gateways, events."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from stores import open_store

from epic.cache.store import CachedStore
from epic.model.base import Condition, Metadata
from epic.model.resources import GWProxy, Node
from epic.model.runs import Run
from epic.runs import gathering, queue, records
from epic.runs.ansible import Outcome
from epic.runs.events import EventHub
from epic.runs.inventory import NodePlan
from epic.runs.queue import RunQueue
from epic.store.queue import enqueue, forget_old_runs
from epic.workqueue.backoff import Backoff


class Executor:
    """Executes nothing; nodes in `down` are unreachable, those in `hanging` end when they are let go."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.executed: list[tuple[str, list[str]]] = []
        self.hanging: dict[str, threading.Event] = {}
        self.results: dict[str, dict[str, Any]] = {}
        self.error: Exception | None = None

    def hang(self, *nodes: str) -> None:
        self.hanging |= {node: threading.Event() for node in nodes}

    def let_go(self) -> None:
        for event in self.hanging.values():
            event.set()

    def execute(
        self,
        run: str,
        plans: Mapping[str, NodePlan],
        on_event: Callable[[Mapping[str, Any]], None],
        canceled: Callable[[], bool],
    ) -> Outcome:
        self.executed.append((run, list(plans)))
        if self.error:
            raise self.error
        for node in sorted(plans, key=lambda name: name in self.hanging):
            gate = self.hanging.get(node)
            while gate is not None and not gate.wait(0.02):
                if canceled():
                    return Outcome(False, "ansible canceled", canceled=True)
            kind = "runner_on_unreachable" if node in self.down else "runner_on_ok"
            result = {"msg": "down", "instances": [], **self.results.get(node, {})}
            on_event({"event": kind, "event_data": {"host": node, "task": "T", "res": result}})
        return Outcome(succeeded=not self.down)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CachedStore]:
    store = open_store(tmp_path / "epic.db")
    with store.transaction() as transaction:
        for name in ("e1", "e2"):
            transaction.create(
                Node.model_validate({"metadata": {"name": name}, "spec": {"address": f"192.0.2.{name[1]}"}})
            )
        status = {"instances": [{"node": "e1", "inside-address": "100.64.0.1"}]}
        transaction.create(
            GWProxy.model_validate(
                {"metadata": {"name": "U1", "namespace": "a"}, "spec": {}, "status": status}
            )
        )
    yield store
    store.close()


@pytest.fixture
def executor() -> Executor:
    return Executor()


@pytest.fixture
def hub() -> EventHub:
    return EventHub()


def ask(store: CachedStore, *nodes: str) -> str:
    with store.transaction() as transaction:
        return [run.name for run in enqueue(transaction, nodes)][-1]


def make_gateways(store: CachedStore, *names: str) -> None:
    with store.transaction() as transaction:
        for name in names:
            transaction.create(
                GWProxy.model_validate({"metadata": {"name": name, "namespace": "a"}, "spec": {}})
            )


def state(store: CachedStore, run: str) -> str:
    return store.get(Run, "", run).status.state


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 another thread makes it true
            await asyncio.sleep(0.01)


@pytest.fixture
async def working(store: CachedStore, executor: Executor, hub: EventHub) -> Any:
    task = asyncio.create_task(RunQueue(store, executor, hub, "1.40.0").run())
    yield task
    executor.let_go()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_each_node_has_one_run_that_waits(store: CachedStore) -> None:
    assert [ask(store, "e2"), ask(store, "e1", "e2"), ask(store, "e1")] == ["1", "1", "2"]
    assert [run.spec.nodes for run in store.list(Run)] == [("e2",), ("e1",)]


def test_a_request_does_not_join_a_retry_that_waits(store: CachedStore) -> None:
    with store.transaction() as transaction:
        later = datetime.now(UTC) + timedelta(hours=1)
        (retry,) = enqueue(transaction, ["e2"], attempt=1, not_before=later)
    assert ask(store, "e2") != retry.name


def test_only_the_last_hundred_finished_runs_are_kept(store: CachedStore) -> None:
    with store.transaction() as transaction:
        for i in range(1, 104):
            run = Run.model_validate({"metadata": {"name": str(i)}, "spec": {"nodes": []}})
            finished = run.status.model_copy(update={"state": "failed" if i % 2 else "succeeded"})
            transaction.create(run.model_copy(update={"status": finished}))
        transaction.create(Run(metadata=Metadata(name="999"), spec=run.spec))
        forget_old_runs(transaction)
    names = {int(run.name) for run in store.list(Run)}
    assert names == {*range(4, 104), 999}


def programmed(store: CachedStore) -> Condition:
    conditions = store.get(GWProxy, "a", "U1").status.conditions
    (found,) = (c for c in conditions if c.type == "Programmed")
    return found


async def test_a_queued_run_is_executed_and_programs_the_gateway(
    store: CachedStore, executor: Executor, working: object
) -> None:
    run = ask(store, "e1")
    await until(lambda: state(store, run) == "succeeded")
    assert executor.executed == [(run, ["e1"])]
    condition = programmed(store)
    assert (condition.type, condition.status) == ("Programmed", "True")
    status = store.get(Run, "", run).status
    assert status.nodes["e1"].state == "ok"
    assert status.started
    assert status.finished


async def test_what_is_asked_for_during_a_run_gets_its_own(
    store: CachedStore, executor: Executor, working: object
) -> None:
    executor.hang("e1")
    first = ask(store, "e1")
    await until(lambda: executor.executed)
    second = ask(store, "e1")
    assert second != first
    executor.let_go()
    await until(lambda: state(store, second) == "succeeded")
    assert executor.executed == [(first, ["e1"]), (second, ["e1"])]


async def test_gateways_that_come_one_upon_the_other_during_a_run_share_the_next_one(
    store: CachedStore, executor: Executor, working: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "QUIET_SECONDS", 30.0)
    monkeypatch.setattr(gathering, "LONGEST_SECONDS", 60.0)
    executor.hang("e1")
    first = ask(store, "e1")
    await until(lambda: executor.executed)
    make_gateways(store, "U2", "U3")
    second = ask(store, "e1")
    executor.let_go()
    await until(lambda: state(store, first) == "succeeded")
    other = ask(store, "e2")
    await until(lambda: state(store, other) == "succeeded")
    assert state(store, second) == "queued"
    monkeypatch.setattr(gathering, "QUIET_SECONDS", 0.0)
    ask(store, "e2")
    await until(lambda: state(store, second) == "succeeded")


async def test_a_node_that_hangs_delays_no_other(
    store: CachedStore, executor: Executor, working: object
) -> None:
    executor.hang("e1")
    hanging, other = "1", "2"
    assert ask(store, "e1", "e2") == other
    await until(lambda: state(store, other) == "succeeded")
    assert state(store, hanging) == "running"
    third = ask(store, "e2")
    await until(lambda: state(store, third) == "succeeded")
    assert state(store, hanging) == "running"


async def test_runs_that_are_too_many_to_begin_at_once_begin_one_after_the_other(
    store: CachedStore, executor: Executor, working: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_TOGETHER", 1)
    last = ask(store, "e1", "e2")
    await until(lambda: [state(store, run) for run in ("1", last)] == ["succeeded"] * 2)
    assert executor.executed == [("1", ["e1"]), (last, ["e2"])]


async def test_a_run_can_be_ended_and_its_node_is_tried_again_later(
    store: CachedStore, executor: Executor, working: object
) -> None:
    executor.hang("e1")
    run = ask(store, "e1")
    await until(lambda: executor.executed)
    with store.transaction() as transaction:
        stored = transaction.get(Run, "", run)
        spec = stored.spec.model_copy(update={"cancel": True})
        transaction.update(stored.model_copy(update={"spec": spec}))
    await until(lambda: state(store, run) == "canceled")
    (retry,) = [r for r in store.list(Run) if r.status.state == "queued"]
    assert (retry.spec.nodes, retry.status.not_before is not None) == (("e1",), True)


async def test_ending_a_run_fails_no_other_that_the_same_process_executes(
    store: CachedStore, executor: Executor, hub: EventHub
) -> None:
    executor.hang("e1", "e2")
    other = ask(store, "e2")
    run = ask(store, "e1")
    task = asyncio.create_task(RunQueue(store, executor, hub, "1.40.0").run())
    await until(lambda: executor.executed)
    assert executor.executed[0][1] == ["e1", "e2"]
    with store.transaction() as transaction:
        stored = transaction.get(Run, "", run)
        spec = stored.spec.model_copy(update={"cancel": True})
        transaction.update(stored.model_copy(update={"spec": spec}))
    await until(lambda: state(store, run) == "canceled")
    await until(lambda: [nodes for _, nodes in executor.executed[1:]] == [["e2"]])
    assert state(store, other) == "running"
    executor.let_go()
    await until(lambda: state(store, other) == "succeeded")
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_node_that_is_down_is_repaired_by_a_retry(
    store: CachedStore, executor: Executor, monkeypatch: pytest.MonkeyPatch, working: object
) -> None:
    monkeypatch.setattr(records, "_BACKOFF_FIRST", 1)
    executor.down = {"e1"}
    run = ask(store, "e1")
    await until(lambda: state(store, run) == "failed")
    condition = programmed(store)
    assert (condition.status, condition.reason) == ("False", "RunFailed")
    assert condition.message == f"run {run} failed on a node; the platform's operators can see why"
    result = store.get(Run, "", run).status.nodes["e1"]
    assert (result.state, result.task, result.message) == ("unreachable", "T", "down")
    retry = store.list(Run)[-1]
    assert (retry.spec.nodes, retry.status.attempt) == (("e1",), 1)
    executor.down = set()
    await until(lambda: state(store, retry.name) == "succeeded")
    condition = programmed(store)
    assert condition.status == "True"


async def test_an_instance_that_failed_is_tried_again_and_a_success_ends_that(
    store: CachedStore, executor: Executor, working: object
) -> None:
    bad = {"gateway": "a.U1", "action": "none", "error": "no disk"}
    executor.results["e1"] = {"instances": [bad], "envoy_versions": ["1.40.0"]}
    run = ask(store, "e1")
    await until(lambda: state(store, run) == "failed")
    assert store.get(Run, "", run).status.nodes["e1"].errors == {"a.U1": "no disk"}
    assert store.get(Node, "", "e1").status.envoy_versions == ("1.40.0",)
    (retry,) = [r for r in store.list(Run) if r.status.state == "queued"]
    executor.results.clear()
    again = ask(store, "e1")
    await until(lambda: state(store, again) == "succeeded")
    assert state(store, retry.name) == "canceled"


async def test_a_result_that_cannot_be_written_is_written_later(
    store: CachedStore, executor: Executor, monkeypatch: pytest.MonkeyPatch, working: object
) -> None:
    monkeypatch.setattr(queue, "_SAVE_AGAIN", Backoff(first=0.02, longest=0.02))
    finish, failures = records.Records.finish, iter([OSError("disk is full")] * 3)

    def failing(*args: Any) -> Any:
        for error in failures:
            raise error
        return finish(*args)

    monkeypatch.setattr(records.Records, "finish", failing)
    run = ask(store, "e1")
    await until(lambda: state(store, run) == "succeeded")
    assert len(executor.executed) == 1


async def test_an_error_of_the_executor_fails_the_run_and_the_queue_goes_on(
    store: CachedStore, executor: Executor, working: object
) -> None:
    executor.error = OSError("no such playbook")
    run = ask(store, "e1")
    await until(lambda: state(store, run) == "failed")
    assert store.get(Run, "", run).status.nodes["e1"].message == "OSError: no such playbook"
    executor.error = None
    second = ask(store, "e2")
    await until(lambda: state(store, second) == "succeeded")


async def test_a_run_for_nodes_that_are_gone_succeeds(
    store: CachedStore, executor: Executor, working: object
) -> None:
    run = ask(store, "gone")
    await until(lambda: state(store, run) == "succeeded")
    assert executor.executed == []


async def test_a_run_says_nothing_of_a_later_node_of_its_nodes_name(
    store: CachedStore, executor: Executor, working: object
) -> None:
    executor.hang("e1")
    executor.results["e1"] = {"envoy_versions": ["1.40.0"]}
    run = ask(store, "e1")
    await until(lambda: executor.executed)
    with store.transaction() as transaction:
        earlier = transaction.get(Node, "", "e1")
        transaction.delete(Node, "", "e1")
        metadata = Metadata(name="e1", creation_timestamp=datetime(2026, 1, 1, tzinfo=UTC))
        transaction.create(Node(metadata=metadata, spec=earlier.spec))
    executor.let_go()
    await until(lambda: state(store, run) == "succeeded")
    assert store.get(Node, "", "e1").status.envoy_versions == ()
    assert store.get(GWProxy, "a", "U1").status.instances[0].unit == ""


async def test_a_restart_neither_loses_nor_doubles_a_run(
    store: CachedStore, executor: Executor, hub: EventHub
) -> None:
    begun = ask(store, "e1")
    with store.transaction() as transaction:
        stored = transaction.get(Run, "", begun)
        status = stored.status.model_copy(update={"state": "running"})
        transaction.update(stored.model_copy(update={"status": status}))
    meanwhile, other = ask(store, "e1"), ask(store, "e2")
    task = asyncio.create_task(RunQueue(store, executor, hub, "1").run())
    await until(lambda: state(store, begun) == "succeeded" and state(store, other) == "succeeded")
    assert state(store, meanwhile) == "canceled"
    assert sorted(node for _, nodes in executor.executed for node in nodes) == ["e1", "e2"]
    task.cancel()


async def test_followers_see_all_events_in_order_whenever_they_come(
    store: CachedStore, executor: Executor, hub: EventHub, working: object
) -> None:
    async def follow(*, live: bool) -> list[object]:
        return [event["event"] async for event in hub.follow(run, live=live)]

    run = ask(store, "e1")
    async with asyncio.timeout(60):
        assert await follow(live=True) == ["started", "task", "finished"]
        assert await follow(live=False) == ["started", "task", "finished"]
    assert [event async for event in hub.follow("77", live=False)] == []


async def test_who_follows_a_run_hears_of_its_end_however_many_runs_come_after_it(hub: EventHub) -> None:
    async def follow() -> list[object]:
        return [event["event"] async for event in hub.follow("followed", live=True)]

    await hub.publish("followed", {"event": "started"})
    await hub.publish("unheard", {"event": "started"})
    following = asyncio.create_task(follow())
    await asyncio.sleep(0)
    for number in range(150):
        await hub.publish(f"later {number}", {"event": "finished"})
    await hub.publish("followed", {"event": "finished"})
    async with asyncio.timeout(60):
        assert await following == ["started", "finished"]
    assert [event async for event in hub.follow("unheard", live=False)] == []
