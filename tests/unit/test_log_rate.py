# SPDX-License-Identifier: Apache-2.0
"""What others can cause does not fill the log."""

from __future__ import annotations

import logging

import pytest

from epic.log_rate import LogOnChange, LogRate


def test_a_flood_leaves_its_first_lines_and_its_number(caplog: pytest.LogCaptureFixture) -> None:
    time = [0.0]
    rate = LogRate(logging.getLogger("flood"), lambda: time[0])
    for number in range(100):
        rate.warning("refused %d", number)
    time[0] = 60.0
    rate.warning("refused %d", 100)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[:20] == [f"refused {number}" for number in range(20)]
    assert lines[20:] == ["refused 100 (80 like it were left out)"]


def test_what_is_nothing_to_worry_about_is_logged_as_such(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rate = LogRate(logging.getLogger("moves"), lambda: 0.0)
    assert [rate.info("moved %d", number) for number in range(21)] == [True] * 20 + [False]
    assert {record.levelno for record in caplog.records} == {logging.INFO}


def test_what_stays_the_same_is_logged_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    time = [0.0]
    changes = LogOnChange(logging.getLogger("changes"), lambda: time[0])
    for second in range(1300):
        time[0] = float(second)
        changes.warning("pool a", "pool a: full")
        changes.warning("pool b", "pool b: full" if second < 700 else "pool b: two are left")
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if line.startswith("pool a")] == [
        "pool a: full",
        "pool a: full (599 like it were left out)",
        "pool a: full (599 like it were left out)",
    ]
    assert [line.partition(" (")[0] for line in lines if line.startswith("pool b")] == [
        "pool b: full",
        "pool b: full",
        "pool b: two are left",
    ]
