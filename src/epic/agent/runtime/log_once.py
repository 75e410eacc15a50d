# SPDX-License-Identifier: Apache-2.0
"""What is wrong now: said once in the log when it begins, and once when it is over."""

from __future__ import annotations

import logging


class LogOnce:
    """Troubles by subject. One that goes on is not logged again; another text of the same subject is."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._troubles: dict[str, str] = {}

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong now, a line each."""
        return tuple(text for _, text in sorted(self._troubles.items()))

    def report(self, subject: str, trouble: str, *, level: int = logging.ERROR) -> None:
        """This is wrong with the subject now; empty: nothing is."""
        before = self._troubles.get(subject, "")
        if trouble:
            self._troubles[subject] = trouble
            if trouble != before:
                self._log.log(level, "%s", trouble)
        elif before:
            del self._troubles[subject]
            self._log.info("over: %s", before)

    def forget(self, subject: str) -> None:
        """There is no such subject any more; that it was in trouble is over without a word."""
        self._troubles.pop(subject, None)
