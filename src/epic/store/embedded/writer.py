# SPDX-License-Identifier: Apache-2.0
"""The one thread that writes: what gathered during the last fsync is committed with the next one."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from epic.errors import EpicError, Unavailable
from epic.store.embedded.database import connect, explain

T = TypeVar("T")
Write = Callable[[sqlite3.Connection], T]

_GROUP = 256
_MAX_WAITING = 10_000


@dataclass(frozen=True, slots=True)
class _Item(Generic[T]):
    write: Write[T]
    is_guarded: bool
    done: asyncio.Future[T]


class Writer:
    """Writes in the order in which they came, each all or nothing, many with one fsync.

    When the disk fails or is full, all writes of the group fail and the next group is tried anew, on a new
    connection: it recovers by itself.
    """

    def __init__(self, path: Path, committed: Callable[[], None]) -> None:
        self._path = path
        self._committed = committed
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[_Item[object] | None] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()
        self._is_closed = False

    async def write(self, write: Write[T], *, guarded: bool = False) -> T:
        """Do this within a transaction; returns when it is durable.

        A guarded write may raise EpicError, whatever it wrote before, without harm to the others.
        """
        if self._is_closed:
            raise Unavailable(f"{self._path}: the store is closed")
        if self._waiting.qsize() >= _MAX_WAITING:
            raise Unavailable(f"{self._path}: {_MAX_WAITING} writes are waiting already")
        done: asyncio.Future[T] = self._loop.create_future()
        self._waiting.put(_Item(write, guarded, done))  # type: ignore[arg-type]
        return await done

    async def close(self) -> None:
        """Finish what waits, then end the thread."""
        if not self._is_closed:
            self._is_closed = True
            self._waiting.put(None)
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            group = [first]
            is_last = False
            with suppress(queue.Empty):
                while len(group) < _GROUP and not is_last:
                    item = self._waiting.get_nowait()
                    if item is None:
                        is_last = True
                    else:
                        group.append(item)
            self._write_group(group)
            if is_last:
                break
        self._drop_connection()

    def _write_group(self, group: Sequence[_Item[object]]) -> None:
        committing = False
        try:
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE")
            results = [_do(item, connection) for item in group]
            committing = True
            connection.execute("COMMIT")
        # Whatever it is, those who wait are told, and the thread lives on.
        except Exception as error:
            self._drop_connection()
            explained = error
            if isinstance(error, sqlite3.Error | OSError):
                explained = explain(error, self._path, committing=committing)
            self._tell(partial(_fail, group, explained))
        else:
            self._committed()
            self._tell(partial(_succeed, group, results))

    def _tell(self, tell: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it all who waited
            self._loop.call_soon_threadsafe(tell)

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connect(self._path)
        return self._connection

    def _drop_connection(self) -> None:
        # Closing rolls back what was not committed.
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


def _do(item: _Item[object], connection: sqlite3.Connection) -> object:
    if not item.is_guarded:
        return item.write(connection)
    connection.execute("SAVEPOINT guard")
    try:
        return item.write(connection)
    except EpicError as error:
        connection.execute("ROLLBACK TO guard")
        return error
    finally:
        connection.execute("RELEASE guard")


def _succeed(group: Sequence[_Item[object]], results: Sequence[object]) -> None:
    for item, result in zip(group, results, strict=True):
        if item.done.done():
            continue
        if isinstance(result, EpicError):
            item.done.set_exception(result)
        else:
            item.done.set_result(result)


def _fail(group: Sequence[_Item[object]], error: Exception) -> None:
    for item in group:
        if not item.done.done():
            # An error of its own for each who waits: a traceback is hung onto it.
            own = type(error)(str(error)) if isinstance(error, EpicError) else error
            item.done.set_exception(own)
