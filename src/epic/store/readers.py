# SPDX-License-Identifier: Apache-2.0
"""A fixed number of connections that read, lent for one question each, whatever the number of threads."""

from __future__ import annotations

import queue
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any

READERS = 8


class Readers:
    """Connections of `connect`, each opened when all before it are lent. Any thread may ask."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], seconds: float) -> None:
        self._connect = connect
        self._seconds = seconds
        # The one given back last is lent first: what it has read before it need not read again.
        self._free: queue.LifoQueue[sqlite3.Connection | None] = queue.LifoQueue()
        for _ in range(READERS):
            self._free.put(None)

    def ask(self, sql: str, values: tuple[object, ...] = ()) -> list[Any]:
        """All rows of one SELECT. Waits a while for a connection, then raises as SQLite when it is busy."""
        try:
            connection = self._free.get(timeout=self._seconds)
        except queue.Empty:
            busy = sqlite3.OperationalError(f"no reader has become free for {self._seconds:.0f} s")
            busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise busy from None
        try:
            connection = connection or self._connect()
            return connection.execute(sql, values).fetchall()
        except BaseException:
            # Whoever asks next gets a new one.
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()
                connection = None
            raise
        finally:
            self._free.put(connection)

    def close(self) -> None:
        """Close all connections, when those who have asked are done."""
        for connection in [self._free.get() for _ in range(READERS)]:
            if connection is not None:
                connection.close()
            self._free.put(None)
