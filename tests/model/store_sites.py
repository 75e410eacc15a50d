# SPDX-License-Identifier: Apache-2.0
"""Where the tests of the store keep it: one class for each engine, all used alike."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from epic.store.embedded.engine import SqliteEngine
from epic.store.engine import Engine
from epic.store.object_store import ObjectStore
from epic.store.objects import Key
from epic.store.schema import Schema, StoredKind

KINDS = ("GWRoute", "GWService", "Node")
SCHEMA = Schema(StoredKind(kind) for kind in KINDS)


class StoreSite(Protocol):
    """A database that outlives the stores that are opened on it."""

    async def open(self, schema: Schema = SCHEMA) -> ObjectStore:
        """Another store on this database."""

    async def open_engine(self) -> Engine:
        """The engine alone."""

    async def alter(self, key: Key, change: Callable[[bytes], bytes]) -> None:
        """Change an object's bytes behind the store's back."""

    async def close_all(self) -> None:
        """Close all that was opened."""


class SqliteSite:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: list[Engine] = []

    async def open(self, schema: Schema = SCHEMA) -> ObjectStore:
        return ObjectStore(await self.open_engine(), schema)

    async def open_engine(self) -> SqliteEngine:
        engine = await SqliteEngine.open(self.path)
        self._opened.append(engine)
        return engine

    async def alter(self, key: Key, change: Callable[[bytes], bytes]) -> None:
        await asyncio.to_thread(self._alter, key, change)

    async def close_all(self) -> None:
        for engine in self._opened:
            await engine.close()
        self._opened.clear()

    def _alter(self, key: Key, change: Callable[[bytes], bytes]) -> None:
        connection = sqlite3.connect(self.path, isolation_level=None)
        select = "SELECT value FROM versions WHERE path = ? AND until IS NULL"
        (value,) = connection.execute(select, (key.path,)).fetchone()
        update = "UPDATE versions SET value = ? WHERE path = ? AND until IS NULL"
        connection.execute(update, (change(value), key.path))
        connection.close()
