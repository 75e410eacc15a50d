# SPDX-License-Identifier: Apache-2.0
"""Commits in the thread that asks for them: for who writes one after the other anyway."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from epic.store.embedded import queries
from epic.store.embedded.database import connect, explain
from epic.store.engine import Committed, Refused, Transaction


class DirectWriter:
    """One connection, used by one thread at a time. It goes on by itself when the disk does.

    All methods raise StorageFull, OutcomeUnknown, Unavailable and Damaged.
    """

    def __init__(self, path: Path, committed: Callable[[], None]) -> None:
        self._path = path
        self._committed = committed
        self._connection: sqlite3.Connection | None = None

    def begin(self, seconds: float) -> int:
        """Keep all others from writing until `commit` or `end`; the newest revision.

        Another process that writes is waited for so long.
        """
        with self._explained():
            if self._connection is None:
                self._connection = connect(self._path)
            self._connection.execute(f"PRAGMA busy_timeout={int(seconds * 1000)}")
            self._connection.execute("BEGIN IMMEDIATE")
            return queries.revision(self._connection)

    def commit(self, transaction: Transaction) -> Committed | Refused:
        """Write durably, all or nothing."""
        assert self._connection is not None  # noqa: S101 it has begun
        with self._explained():
            outcome = queries.commit(self._connection, transaction)
        with self._explained(committing=True):
            self._connection.execute("COMMIT")
        self._committed()
        return outcome

    def end(self) -> None:
        """Let others write, if that is not so already; what was not committed is gone."""
        if self._connection is not None and self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection, which ends what has begun."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    @contextmanager
    def _explained(self, *, committing: bool = False) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise explain(error, self._path, committing=committing) from error
