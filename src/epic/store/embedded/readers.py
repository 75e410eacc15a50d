# SPDX-License-Identifier: Apache-2.0
"""A fixed number of threads that read, each with a connection of its own."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from epic.store.embedded.database import connect, explain

T = TypeVar("T")

READERS = 4


class Readers:
    """However many ask, there are READERS threads and as many connections."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._own = threading.local()
        self._connections: list[sqlite3.Connection] = []

    async def read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Ask in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, question)

    def close(self) -> None:
        """End the threads, when they are done with what they do."""
        self._threads.shutdown()
        for connection in self._connections:
            connection.close()

    def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return question(self._connection())
        except sqlite3.Error as error:
            self._drop_connection()
            raise explain(error, self._path) from error

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = connect(self._path)
            self._connections.append(connection)
        return connection

    def _drop_connection(self) -> None:
        # After an error the next question gets a new one.
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is not None:
            self._own.connection = None
            self._connections.remove(connection)
            with suppress(sqlite3.Error):
                connection.close()
