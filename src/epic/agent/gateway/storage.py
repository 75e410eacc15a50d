"""What the control plane sent last, on disk: an agent that starts serves from it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from google.protobuf.any_pb2 import Any

from epic.ads.snapshot import TYPES, Resources, Versioned
from epic.agent.gateway.resource_cache import ResourceCache
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

Row = tuple[str, bytes] | None
"""Version and content; None: the resource is gone."""
Rows = Mapping[tuple[str, str], Row]
"""By type and name."""


def load(directory: Path) -> ResourceCache | None:
    """What was written; None when there is nothing that can be read."""
    path = directory / FILE
    if not path.exists():
        return None
    held = ResourceCache()
    try:
        for type_url, resources in _read(path):
            held.update(type_url, resources)
    except (sqlite3.Error, ValueError) as error:
        log.error("%s: %s; waiting for the control plane to send everything again", path, error)
        path.unlink()
        return None
    held.mark_complete()
    return held


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


def _read(path: Path) -> Iterator[tuple[str, Resources]]:
    with closing(sqlite3.connect(path)) as database:
        if (found := _format(database)) != _FORMAT:
            raise ValueError(f"it has format {found}; this agent reads {_FORMAT}")
        for type_url in TYPES:
            rows = database.execute("SELECT name, version, body FROM resource WHERE type = ?", [type_url])
            while part := rows.fetchmany(_ROWS):
                yield type_url, {n: Versioned(v, Any(type_url=type_url, value=body)) for n, v, body in part}


def _format(database: sqlite3.Connection) -> int:
    (found,) = database.execute("PRAGMA user_version").fetchone()
    return int(found)


class Saver:
    """Writes changes soon after `flush`; many at once become one write."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._worker = Worker("state")
        self._pending: dict[tuple[str, str], Row] = {}
        self._wake = asyncio.Event()
        self._flushed = False

    def save(self, type_url: str, updated: Resources, removed: Sequence[str] = ()) -> None:
        """Note a change."""
        self._pending.update({(type_url, name): None for name in removed})
        self._pending.update({(type_url, n): (r.version, r.body.value) for n, r in updated.items()})

    def flush(self) -> None:
        """Have written what was noted."""
        self._flushed = True
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled, and then what is left."""
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(_QUIET_SECONDS)
                self._wake.clear()
                rows = dict(self._pending)
                if await self._worker.run(self._write, rows):
                    self._pending = {
                        key: row
                        for key, row in self._pending.items()
                        if key not in rows or rows[key] is not row
                    }
                else:
                    await asyncio.sleep(_RETRY_SECONDS)
                    self._wake.set()
        finally:
            self._worker.close()
            if self._flushed and self._pending:
                self._write(self._pending)

    def _write(self, rows: Rows) -> bool:
        try:
            write(self._directory, rows)
        except (sqlite3.Error, OSError) as error:
            log.error("%s cannot be written: %s", self._directory / FILE, error)
            return False
        return True
