# SPDX-License-Identifier: Apache-2.0
"""The log on standard error: one line a message, whatever text of others is in it."""

from __future__ import annotations

import logging
import sys

from epic.printable import escape


class LineFormatter(logging.Formatter):
    """Shows what cannot be printed; lines of tracebacks are indented, so that none looks like a message."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name of its parent
        """The message in one line."""
        return escape(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802
        """The traceback, in lines that begin with two spaces."""
        text: str = super().formatException(ei)  # type: ignore[arg-type]
        return "\n".join(f"  {escape(line)}" for line in text.split("\n"))


def log_to_stderr(level: int | str) -> None:
    """Log so, from this level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level, handlers=[handler])
