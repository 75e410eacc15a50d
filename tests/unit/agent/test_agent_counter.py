# SPDX-License-Identifier: Apache-2.0
"""The numbers of hellos: they rise for ever, and never run far ahead of the clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from epic.agent.workload import counter as module
from epic.agent.workload.counter import RESERVE_NS, HelloCounter

SECOND = 10**9


def test_numbers_follow_the_clock_and_never_fall(tmp_path: Path) -> None:
    counter = HelloCounter(tmp_path)
    numbers = [counter.next(now) for now in (1000, 1000, 500, 2000)]
    assert numbers == [1000, 1001, 1002, 2000]


def test_a_restart_goes_on_above_what_was_used(tmp_path: Path) -> None:
    used = HelloCounter(tmp_path).next(50 * SECOND)
    assert HelloCounter(tmp_path).next(10 * SECOND) > used


def test_a_thousand_restarts_run_no_further_ahead_than_one(tmp_path: Path) -> None:
    now, last = 1000 * SECOND, 0
    for restart in range(1000):
        number = HelloCounter(tmp_path).next(now + restart)
        assert number > last
        last = number
    assert last <= now + RESERVE_NS + 2 * SECOND


def test_numbers_that_are_ahead_are_the_clocks_again_when_it_has_caught_up(tmp_path: Path) -> None:
    HelloCounter(tmp_path).next(SECOND)
    counter = HelloCounter(tmp_path)
    assert counter.next(2 * SECOND) > 2 * SECOND
    later = SECOND + 2 * RESERVE_NS
    assert counter.next(later) == later


def test_a_full_disk_stops_no_hello(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_atomically", full)
    counter = HelloCounter(tmp_path)
    assert [counter.next(now) for now in (1000, 1000, 2000)] == [1000, 1001, 2000]


def test_a_damaged_file_is_as_none(tmp_path: Path) -> None:
    (tmp_path / module.FILE).write_text("x")
    assert HelloCounter(tmp_path).next(1000) == 1000
