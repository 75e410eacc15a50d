# SPDX-License-Identifier: Apache-2.0
"""What the agent was told last, on disk: rows with a key, so that one that starts goes on from there."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from epic.agent.runtime.worker import Worker

log = logging.getLogger(__name__)

FILE = "resources.db"
_FORMAT = 1
_TABLE = """
    CREATE TABLE resource (
        type TEXT, name TEXT, version TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (type, name)
    ) WITHOUT ROWID
"""
_ROWS = 2000
_QUIET_SECONDS = 0.05
_RETRY_SECONDS = 5.0

Key = tuple[str, str]
"""Type and name."""
Row = tuple[str, bytes] | None
"""Version and content; None: there is no such thing (any more)."""
Rows = Mapping[Key, Row]


class Stored(NamedTuple):
    """A row that was written."""

    name: str
    version: str
    body: bytes


class Damaged(Exception):
    """What is on disk cannot be read, or makes no sense."""


def read(directory: Path, types: Iterable[str]) -> Iterator[tuple[str, list[Stored]]]:
    """The rows of these types, in their order, a few thousand at a time; none when nothing was written.

    Raises `Damaged`.
    """
    path = directory / FILE
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path)) as database:
            if (found := _format(database)) != _FORMAT:
                raise Damaged(f"it has format {found}; this agent reads {_FORMAT}")
            for type_ in types:
                rows = database.execute("SELECT name, version, body FROM resource WHERE type = ?", [type_])
                while part := rows.fetchmany(_ROWS):
                    yield type_, [Stored(*row) for row in part]
    except sqlite3.Error as error:
        raise Damaged(str(error)) from error


def write(directory: Path, rows: Rows) -> None:
    """Take in changes, all or none; for root only, for there are keys among them."""
    path = directory / FILE
    path.touch(mode=0o600)
    # A transaction that was cut short is undone when the file is opened next.
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("BEGIN")
        if _format(database) == 0:
            database.execute(_TABLE)
            database.execute(f"PRAGMA user_version = {_FORMAT}")
        database.executemany(
            "INSERT OR REPLACE INTO resource VALUES (?, ?, ?, ?)",
            ((*key, *row) for key, row in rows.items() if row is not None),
        )
        database.executemany(
            "DELETE FROM resource WHERE type = ? AND name = ?",
            (key for key, row in rows.items() if row is None),
        )


def remove(directory: Path) -> None:
    """Forget everything: what is there cannot be read, or the node leaves EPIC."""
    for path in (directory / FILE, directory / f"{FILE}-journal"):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _format(database: sqlite3.Connection) -> int:
    (found,) = database.execute("PRAGMA user_version").fetchone()
    return int(found)


class Saver:
    """Writes changes soon after `flush`; many at once become one write.

    A disk that takes nothing is said in the log and tried again; nobody waits for it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._worker = Worker("state")
        self._pending: dict[Key, Row] = {}
        self._wake = asyncio.Event()
        self._flushed = False
        self._ended = False
        self._trouble = ""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the disk now."""
        return (self._trouble,) if self._trouble else ()

    def save(self, rows: Rows) -> None:
        """Note changes."""
        self._pending.update(rows)

    def flush(self) -> None:
        """Have written what was noted."""
        self._flushed = True
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(_QUIET_SECONDS)
            self._wake.clear()
            rows = dict(self._pending)
            if await self._worker.run(self._write, rows):
                self._pending = {
                    key: row for key, row in self._pending.items() if key not in rows or rows[key] is not row
                }
            else:
                await asyncio.sleep(_RETRY_SECONDS)
                self._wake.set()

    async def forget_all(self) -> None:
        """Remove what was written, and write nothing any more."""
        self._ended = True
        self._pending.clear()
        await self._worker.run(remove, self._directory)

    def close(self) -> None:
        """Write what is left and end."""
        self._worker.close()
        if self._flushed and self._pending:
            self._write(self._pending)

    def _write(self, rows: Rows) -> bool:
        trouble = ""
        if self._ended:
            return True
        try:
            write(self._directory, rows)
        except (sqlite3.Error, OSError) as error:
            trouble = f"{self._directory / FILE} cannot be written: {error}"
        if trouble != self._trouble:
            log.log(logging.ERROR if trouble else logging.INFO, "%s", trouble or "the state is written again")
        self._trouble = trouble
        return not trouble
