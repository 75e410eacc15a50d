# SPDX-License-Identifier: Apache-2.0
"""Keys that fail: the log says what fails and when it is over, not how often and of how many."""

from __future__ import annotations

import logging

import pytest

from epic.errors import StorageFull
from epic.workqueue.failures import FailureLog


@pytest.fixture
def failures(caplog: pytest.LogCaptureFixture) -> FailureLog[int]:
    caplog.set_level(logging.INFO)
    return FailureLog(logging.getLogger("failures"))


def test_what_many_keys_meet_again_and_again_is_said_once_and_once_that_it_is_over(
    failures: FailureLog[int], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        for key in range(100):
            failures.failed(key, f"gateway {key}", OSError("no such thing"))
    for key in range(100):
        failures.succeeded(key, f"gateway {key}")
    assert [line.getMessage() for line in caplog.records] == [
        "gateway 0: no such thing; it is tried again",
        "gateway 99: it went well again",
    ]


def test_another_failure_of_a_key_is_said(
    failures: FailureLog[int], caplog: pytest.LogCaptureFixture
) -> None:
    failures.failed(1, "gateway 1", OSError("no such thing"))
    failures.failed(1, "gateway 1", OSError("another"))
    failures.succeeded(1, "gateway 1")
    failures.failed(1, "gateway 1", OSError("another"))
    assert [line.getMessage().split(": ")[1] for line in caplog.records] == [
        "no such thing; it is tried again",
        "another; it is tried again",
        "it went well again",
        "another; it is tried again",
    ]


def test_failures_that_differ_by_key_do_not_fill_the_log(
    failures: FailureLog[int], caplog: pytest.LogCaptureFixture
) -> None:
    for key in range(1000):
        failures.failed(key, f"gateway {key}", KeyError(key))
    assert len(caplog.records) <= 21


def test_that_nothing_can_be_written_is_left_to_the_store(
    failures: FailureLog[int], caplog: pytest.LogCaptureFixture
) -> None:
    failures.failed(1, "gateway 1", StorageFull("no room"))
    failures.succeeded(1, "gateway 1")
    assert not caplog.records
