# SPDX-License-Identifier: Apache-2.0
"""Where the tests of the store keep it: one class for each engine, all used alike."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from epic.proto import etcd_pb2 as pb
from epic.store.embedded.engine import SqliteEngine
from epic.store.engine import Engine
from epic.store.etcd.connection import Connection
from epic.store.etcd.engine import EtcdEngine
from epic.store.etcd.settings import EtcdSettings
from epic.store.location import StoreLocation
from epic.store.object_store import ObjectStore
from epic.store.objects import Key
from epic.store.schema import Schema, StoredKind

KINDS = ("GWRoute", "GWService", "Node")
SCHEMA = Schema(StoredKind(kind) for kind in KINDS)


class StoreSite(Protocol):
    """A database that outlives the stores that are opened on it."""

    @property
    def location(self) -> StoreLocation:
        """Where it is."""

    async def open(self, schema: Schema = SCHEMA) -> ObjectStore:
        """Another store on this database."""

    async def open_engine(self) -> Engine:
        """The engine alone."""

    async def alter(self, key: Key, change: Callable[[bytes], bytes]) -> None:
        """Change an object's bytes behind the store's back."""

    async def destroy(self) -> None:
        """Close it all and lose the data."""

    async def close_all(self) -> None:
        """Close all that was opened."""


class SqliteSite:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.location = StoreLocation(sqlite=path)
        self._opened: list[Engine] = []

    async def open(self, schema: Schema = SCHEMA) -> ObjectStore:
        return ObjectStore(await self.open_engine(), schema)

    async def open_engine(self) -> SqliteEngine:
        engine = await SqliteEngine.open(self.path)
        self._opened.append(engine)
        return engine

    async def alter(self, key: Key, change: Callable[[bytes], bytes]) -> None:
        await asyncio.to_thread(self._alter, key, change)

    async def destroy(self) -> None:
        await self.close_all()
        self.path.write_bytes(b"not a database" * 1000)

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


class EtcdSite:
    """A prefix in an etcd."""

    def __init__(self, settings: EtcdSettings) -> None:
        self.settings = settings
        self.location = StoreLocation(etcd=settings)
        self._opened: list[Engine] = []

    async def open(self, schema: Schema = SCHEMA) -> ObjectStore:
        return ObjectStore(await self.open_engine(), schema)

    async def open_engine(self) -> EtcdEngine:
        engine = await EtcdEngine.open(self.settings)
        self._opened.append(engine)
        return engine

    async def alter(self, key: Key, change: Callable[[bytes], bytes]) -> None:
        path = f"{self.settings.prefix}objects/{key.path}".encode()
        connection = Connection(self.settings)
        found = await connection.member.kv.Range(pb.RangeRequest(key=path))
        await connection.close()
        await self._put(path, change(found.kvs[0].value))

    async def write_meta(self, value: bytes) -> None:
        """Replace what the store knows of itself."""
        await self._put(f"{self.settings.prefix}meta".encode(), value)

    async def destroy(self) -> None:
        await self.close_all()
        connection = Connection(self.settings)
        prefix = self.settings.prefix.encode()
        everything = pb.DeleteRangeRequest(key=prefix, range_end=prefix[:-1] + b"0")
        await connection.member.kv.Txn(pb.TxnRequest(success=[pb.RequestOp(request_delete_range=everything)]))
        await connection.close()

    async def close_all(self) -> None:
        for engine in self._opened:
            await engine.close()
        self._opened.clear()

    async def _put(self, key: bytes, value: bytes) -> None:
        connection = Connection(self.settings)
        put = pb.RequestOp(request_put=pb.PutRequest(key=key, value=value))
        await connection.member.kv.Txn(pb.TxnRequest(success=[put]))
        await connection.close()
