# SPDX-License-Identifier: Apache-2.0
"""Text of others in the log: no line of it passes for one of ours, and no terminal obeys it."""

from __future__ import annotations

import logging
import sys

import pytest

from epic.log_lines import LineFormatter
from epic.printable import escape

HOSTILE = "a\x1b[2J\x07\x00\x9b\u202eb\x7f"


def test_what_a_terminal_would_obey_is_shown_instead() -> None:
    assert escape(HOSTILE) == r"a\u001b[2J\u0007\u0000\u009b\u202eb\u007f"
    assert escape("two\nlines") == r"two\nlines"
    assert escape("two\nlines\t", lines=True) == "two\nlines\\t"
    assert escape("Zürich 東京 \U0001f600") == "Zürich 東京 \U0001f600"


def record(message: str, *args: object, failed: bool = False) -> logging.LogRecord:
    return logging.LogRecord(
        "epic.api", logging.INFO, "", 0, message, args, sys.exc_info() if failed else None
    )


@pytest.mark.parametrize("text", ["n1\nINFO epic.api: DELETE /everything", HOSTILE])
def test_a_message_is_one_line(text: str) -> None:
    line = LineFormatter().format(record("node %s", text))
    assert line == f"INFO epic.api: node {escape(text)}"
    assert line.isprintable()


def test_no_line_of_a_traceback_looks_like_a_message() -> None:
    try:
        raise ValueError("bad\nINFO epic.api: all is well\x1b[2J")
    except ValueError:
        lines = LineFormatter().format(record("it failed", failed=True)).split("\n")
    assert lines[0] == "INFO epic.api: it failed"
    assert r"  INFO epic.api: all is well\u001b[2J" in lines
    assert all(line.startswith("  ") and line.isprintable() for line in lines[1:])
