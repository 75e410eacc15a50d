# SPDX-License-Identifier: Apache-2.0
"""The queue of keys: waiting once, worked on by one, failing ever later, measured."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from epic.workqueue.backoff import Backoff
from epic.workqueue.queue import WorkQueue


class Time:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def queue(time: Time) -> WorkQueue[str]:
    return WorkQueue(time)


def test_keys_wait_once_and_come_in_the_order_in_which_they_are_due(
    queue: WorkQueue[str], time: Time
) -> None:
    for key in ("a", "b", "a"):
        queue.add(key)
    queue.add("c", 5)
    queue.add("c", 9)
    assert queue.take(1) == ["a"]
    assert queue.take(9) == ["b"]
    assert (queue.take(9), queue.wait()) == ([], 5)
    time.now += 5
    assert (queue.wait(), queue.take(9), queue.wait()) == (0, ["c"], None)


def test_an_earlier_time_counts_and_a_later_one_does_not(queue: WorkQueue[str], time: Time) -> None:
    queue.add("a", 9)
    queue.add("a", 2)
    queue.add("a", 5)
    assert queue.wait() == 2
    time.now += 2
    assert (queue.take(9), queue.wait()) == (["a"], None)


def test_key_that_is_added_while_it_is_worked_on_is_due_again_when_that_is_done(
    queue: WorkQueue[str],
) -> None:
    queue.add("a")
    assert queue.take(9) == ["a"]
    queue.add("a")
    queue.add("a", 7)
    assert (queue.take(9), queue.wait()) == ([], None)
    queue.done("a")
    assert queue.take(9) == ["a"]
    queue.done("a")
    assert queue.wait() is None


def test_failures_come_ever_later_until_one_goes_well(time: Time) -> None:
    queue: WorkQueue[str] = WorkQueue(time, Backoff(first=1, longest=5))
    waits = []
    for count in range(1, 6):
        queue.add("a")  # a change is reason enough to try at once
        assert queue.take(9) == ["a"]
        assert queue.failed("a") == count
        queue.done("a")
        waits.append(queue.wait())
        time.now += waits[-1] or 0
        assert queue.take(9) == ["a"]
        queue.done("a")
    assert waits == [1, 2, 4, 5, 5]
    assert (queue.succeeded("a"), queue.succeeded("a")) == (True, False)
    queue.add("a")
    queue.take(1)
    assert queue.failed("a") == 1


def test_a_key_that_fails_does_not_wait_for_thousands_that_fail(time: Time) -> None:
    queue: WorkQueue[int] = WorkQueue(time, Backoff(first=0.1))
    for key in range(1000):
        queue.add(key)
    for key in queue.take(1000):
        queue.failed(key)
        queue.done(key)
    time.now += 0.1
    assert len(queue.take(1000)) == 1000


def test_keys_are_done_however_their_work_ends(queue: WorkQueue[str]) -> None:
    queue.add("a")
    with suppress(OSError), queue.work(5) as keys:
        assert keys == ["a"]
        queue.failed("a")
        raise OSError
    assert queue.take(1) == []
    assert queue.wait() == 0.5


def test_depth_latency_work_and_retries_are_measured(queue: WorkQueue[str], time: Time) -> None:
    queue.add("a")
    queue.add("b")
    queue.add("c", 60)
    time.now += 2
    queue.take(1)
    time.now += 4
    found = queue.metrics()
    assert (found.depth, found.waiting) == (1, 1)
    assert (found.adds, found.latency.total, sum(found.latency.counts)) == (3, 2, 1)
    queue.failed("a")
    queue.done("a")
    found = queue.metrics()
    assert (found.retries, found.work.total, found.waiting) == (1, 4, 2)


KEYS = st.sampled_from("abcd")


class AnyOrder(RuleBasedStateMachine):
    """Whatever is done in whatever order: a key that is added is taken in time, and by one at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.time = Time()
        self.queue: WorkQueue[str] = WorkQueue(self.time, Backoff(1, 4))
        self.due: dict[str, float] = {}
        self.working: set[str] = set()
        self.failures: dict[str, int] = {}

    @rule(key=KEYS, delay=st.integers(0, 5))
    def add(self, key: str, delay: int) -> None:
        self.queue.add(key, delay)
        self._expect(key, delay)

    @rule(limit=st.integers(0, 4))
    def take(self, limit: int) -> None:
        able = {k for k, at in self.due.items() if at <= self.time.now and k not in self.working}
        found = self.queue.take(limit)
        assert len(found) == len(set(found)) == min(limit, len(able)) and set(found) <= able
        for key in found:
            del self.due[key]
        self.working.update(found)

    @precondition(lambda self: self.working)
    @rule(fails=st.booleans(), data=st.data())
    def finish(self, fails: bool, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        if fails:
            self.failures[key] = self.failures.get(key, 0) + 1
            assert self.queue.failed(key) == self.failures[key]
            self._expect(key, min(2 ** (self.failures[key] - 1), 4))
        else:
            assert self.queue.succeeded(key) == (self.failures.pop(key, 0) > 0)
        self.queue.done(key)
        self.working.discard(key)

    @rule(seconds=st.integers(1, 4))
    def pass_time(self, seconds: int) -> None:
        self.time.now += seconds

    @invariant()
    def says_when_the_next_is_due(self) -> None:
        able = [at for key, at in self.due.items() if key not in self.working]
        expected = max(0.0, min(able) - self.time.now) if able else None
        assert self.queue.wait() == expected

    def _expect(self, key: str, delay: float) -> None:
        at = self.time.now + delay
        self.due[key] = min(at, self.due.get(key, at))


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40)
