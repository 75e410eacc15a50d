# SPDX-License-Identifier: Apache-2.0
"""The embedded store: one SQLite file in WAL mode; a commit is on disk before it returns."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from epic.errors import AlreadyExists, Conflict, NotFound, NotWritable, Unavailable
from epic.kinds.registry import KINDS
from epic.model.base import Resource, now
from epic.store.health import CANNOT_WRITE, Health, explain
from epic.store.interface import Change, R
from epic.store.readers import Readers

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
  kind TEXT NOT NULL, account TEXT NOT NULL, name TEXT NOT NULL,
  revision INTEGER NOT NULL UNIQUE,
  body TEXT,  -- NULL: deleted at this revision
  PRIMARY KEY (kind, account, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sequences (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
# Sequences of the store itself. The horizon is the newest deletion that was forgotten.
_REVISION = ".revision"
_HORIZON = ".horizon"
_DELETIONS_KEPT = 10_000
_LOCK_SECONDS = 5.0
"""How long a write waits for another one, of this process or of another."""
_IN_TROUBLE_SECONDS = 0.1
"""How long it waits for one of this process while writes fail anyway; for other processes not at all."""
_WATCH_BATCH = 500
_PARSED_KEPT = 200_000

_Rows = list[Any]
_Ask = Callable[[str, tuple[object, ...]], _Rows]
"""Gives all rows of one SELECT."""


class _Parsed:
    """Objects by revision: a revision names one state of one object, so parsing it once is enough."""

    def __init__(self) -> None:
        self._objects: dict[int, Resource] = {}

    def get(self, kind: type[R], revision: int, body: str, *, durable: bool) -> R:
        found = self._objects.get(revision)
        if found is None:
            found = KINDS.of_model(kind).decode(body, revision)
            # A revision that rolls back will be given to another object.
            if durable:
                if len(self._objects) >= _PARSED_KEPT:
                    self._objects.clear()
                self._objects[revision] = found
        assert isinstance(found, kind)  # noqa: S101
        return found

    def forget(self, revisions: list[int]) -> None:
        for revision in revisions:
            self._objects.pop(revision, None)


class _Access:
    """Reads by way of `ask`."""

    def __init__(self, ask: _Ask, parsed: _Parsed, durable_until: int | None) -> None:
        self._ask = ask
        self._parsed = parsed
        self._durable_until = durable_until

    def _parse(self, kind: type[R], revision: int, body: str) -> R:
        durable = self._durable_until is None or revision <= self._durable_until
        return self._parsed.get(kind, revision, body, durable=durable)

    def change(self, kind: str, account: str, name: str, revision: int, body: str | None) -> Change:
        obj = None if body is None else self._parse(KINDS[kind].model, revision, body)
        return Change(revision, kind, account, name, obj)

    def find(self, kind: type[R], account: str, name: str) -> R | None:
        rows = self._ask(
            "SELECT revision, body FROM objects WHERE kind=? AND account=? AND name=? AND body IS NOT NULL",
            (kind.kind, account, name),
        )
        return self._parse(kind, *rows[0]) if rows else None

    def get(self, kind: type[R], account: str, name: str) -> R:
        found = self.find(kind, account, name)
        if found is None:
            raise NotFound(f"{_title(kind, account, name)} does not exist")
        return found

    def list(self, kind: type[R], account: str | None = None) -> list[R]:
        where, values = ("", ()) if account is None else ("AND account=?", (account,))
        rows = self._ask(
            f"SELECT revision, body FROM objects WHERE kind=? {where} AND body IS NOT NULL "  # noqa: S608
            "ORDER BY account, name",
            (kind.kind, *values),
        )
        return [self._parse(kind, *row) for row in rows]


class _SqliteTransaction(_Access):
    """Writes on the one writing connection; the store's lock is held."""

    def __init__(self, connection: sqlite3.Connection, parsed: _Parsed, revision: int) -> None:
        super().__init__(_asking(connection), parsed, revision)
        self._sql = connection
        self.revision = revision
        self.superseded: list[int] = []

    def changes(self, since: int, kinds: Iterable[type[Resource]]) -> Sequence[Change]:
        _check_horizon(self._ask, since)
        names = json.dumps([kind.kind for kind in kinds])
        # By the index of revisions: those of the kinds are many, those since are few.
        rows = self._ask(
            "SELECT kind, account, name, revision, body FROM objects WHERE revision > ? AND revision <= ? "
            "AND +kind IN (SELECT value FROM json_each(?)) ORDER BY revision",
            (since, self.revision, names),
        )
        return [self.change(*row) for row in rows]

    def create(self, obj: R) -> R:
        kind = type(obj)
        if self.find(kind, obj.account, obj.name) is not None:
            raise AlreadyExists(f"{_title(kind, obj.account, obj.name)} exists already")
        stamp = {"creation_timestamp": obj.metadata.creation_timestamp or now(), "generation": 1}
        obj = obj.model_copy(update={"metadata": obj.metadata.model_copy(update=stamp)})
        return self._put(obj, _body(obj))

    def update(self, obj: R) -> R:
        kind = type(obj)
        stored = self.get(kind, obj.account, obj.name)
        version = stored.metadata.resource_version
        if obj.metadata.resource_version != version:
            raise Conflict(
                f"{_title(kind, obj.account, obj.name)} was changed in the meantime: it is at version "
                f"{version}, you read version {obj.metadata.resource_version}; read it again and repeat"
            )
        kept = {
            "creation_timestamp": stored.metadata.creation_timestamp,
            "generation": stored.metadata.generation + _differ_in_spec(obj, stored),
        }
        obj = obj.model_copy(update={"metadata": obj.metadata.model_copy(update=kept)})
        body = _body(obj)
        if body == _body(stored):
            return stored
        self.superseded.append(version)
        return self._put(obj, body)

    def delete(self, kind: type[R], account: str, name: str) -> None:
        stored = self.get(kind, account, name)
        self.superseded.append(stored.metadata.resource_version)
        self._write(kind.kind, account, name, None)

    def next_number(self, sequence: str) -> int:
        row = self._sql.execute(
            "INSERT INTO sequences VALUES (?, 1) "
            "ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value",
            (sequence,),
        ).fetchone()
        return int(row[0])

    def _put(self, obj: R, body: str) -> R:
        return obj.at(self._write(obj.kind, obj.account, obj.name, body))

    def _write(self, kind: str, account: str, name: str, body: str | None) -> int:
        revision = self.next_number(_REVISION)
        self._sql.execute(
            "REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", (kind, account, name, revision, body)
        )
        return revision


class SqliteStore:
    """The store in the file `path`, which only its owner may read (it holds hashes and tunnel keys)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parsed = _Parsed()
        self._lock = threading.Lock()
        self._readers = Readers(self._connect, _LOCK_SECONDS)
        self._access = _Access(self._ask, self._parsed, None)
        self._watchers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._writes, self._reads = Health(path, "written"), Health(path, "read")
        try:
            _create_private(path)
            self._writer = self._connect()
            self._writer.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise Unavailable(f"{path} cannot be opened: {error}") from error
        # What is not forgotten now is so at another start.
        with suppress(NotWritable):
            self._forget_deletions()

    def close(self) -> None:
        """Close all connections; the store must not be used afterwards."""
        self._readers.close()
        self._writer.close()

    @property
    def revision(self) -> int:
        """The revision of the newest durable change."""
        return _sequence(self._ask, _REVISION)

    def get(self, kind: type[R], account: str, name: str) -> R:
        """The object; raises NotFound."""
        return self._access.get(kind, account, name)

    def find(self, kind: type[R], account: str, name: str) -> R | None:
        """The object, or None."""
        return self._access.find(kind, account, name)

    def list(self, kind: type[R], account: str | None = None) -> list[R]:
        """All objects of the kind, of one account or (None) of all, ordered by account and name."""
        return self._access.list(kind, account)

    @contextmanager
    def transaction(self) -> Iterator[_SqliteTransaction]:
        """Begin a write; it commits when the block ends and rolls back when the block raises."""
        with self._writing():
            ask = _asking(self._writer)
            before = _sequence(ask, _REVISION)
            transaction = _SqliteTransaction(self._writer, self._parsed, before)
            yield transaction
            after = _sequence(ask, _REVISION)
        # Not before it is durable: a revision that rolls back names nothing.
        self._parsed.forget(transaction.superseded)
        if after != before:
            self._writes.succeeded()
            self._wake()

    async def watch(self, since: int) -> AsyncGenerator[Change, None]:
        """Every change after revision `since`, in order, for ever."""
        changed = asyncio.Event()
        self._watchers[changed] = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(_check_horizon, self._ask, since)
            while True:
                changed.clear()
                changes = await asyncio.to_thread(self._changes, since)
                for change in changes:
                    since = change.revision
                    yield change
                if not changes:
                    await changed.wait()
        finally:
            del self._watchers[changed]

    def _changes(self, since: int) -> Sequence[Change]:
        rows = self._ask(
            "SELECT kind, account, name, revision, body FROM objects "
            "WHERE revision > ? ORDER BY revision LIMIT ?",
            (since, _WATCH_BATCH),
        )
        return [self._access.change(*row) for row in rows]

    def _wake(self) -> None:
        for event, loop in list(self._watchers.items()):
            with suppress(RuntimeError):  # the watcher's loop has ended
                loop.call_soon_threadsafe(event.set)

    def _forget_deletions(self) -> None:
        # Only at the start: no watcher can be behind what is forgotten here.
        with self._writing():
            row = self._writer.execute(
                "SELECT revision FROM objects WHERE body IS NULL ORDER BY revision DESC LIMIT 1 OFFSET ?",
                (_DELETIONS_KEPT,),
            ).fetchone()
            if row is not None:
                self._writer.execute("DELETE FROM objects WHERE body IS NULL AND revision <= ?", row)
                self._writer.execute("REPLACE INTO sequences VALUES (?, ?)", (_HORIZON, *row))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction of SQLite's. Raises NotWritable when that is not possible, or was not."""
        with self._locked() as seconds:
            try:
                self._writer.execute(f"PRAGMA busy_timeout={int(seconds * 1000)}")
                self._writer.execute("BEGIN IMMEDIATE")
                yield
                self._writer.execute("COMMIT")
            except BaseException as error:
                # SQLite ends some transactions by itself; the first error is the one that says why.
                if self._writer.in_transaction:
                    with suppress(sqlite3.Error):
                        self._writer.execute("ROLLBACK")
                explained = explain(error, writing=True) if isinstance(error, sqlite3.Error) else None
                if explained is None:
                    raise
                self._writes.failed(explained)
                raise explained from error

    @contextmanager
    def _locked(self) -> Iterator[float]:
        """Be the one who writes; for how many seconds other processes may be waited for."""
        seconds = _IN_TROUBLE_SECONDS if self._writes.failing else _LOCK_SECONDS
        if not self._lock.acquire(timeout=seconds):
            error = NotWritable(CANNOT_WRITE, f"a write has not ended for {seconds:.0f} s")
            self._writes.failed(error)
            raise error
        try:
            # They may have begun to fail in the meantime.
            yield 0.0 if self._writes.failing else seconds
        finally:
            self._lock.release()

    def _ask(self, sql: str, values: tuple[object, ...] = ()) -> _Rows:
        """All rows of one SELECT; raises Unavailable when reading is not possible now."""
        try:
            rows = self._readers.ask(sql, values)
        except sqlite3.Error as error:
            explained = explain(error, writing=False)
            if explained is None:
                raise
            self._reads.failed(explained)
            raise explained from error
        self._reads.succeeded()
        return rows

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, isolation_level=None, timeout=_LOCK_SECONDS, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        except BaseException:
            connection.close()
            raise
        return connection


def _create_private(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return
    # A command of root's may be first; the service that owns the directory must be able to write.
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _asking(connection: sqlite3.Connection) -> _Ask:
    return lambda sql, values: connection.execute(sql, values).fetchall()


def _sequence(ask: _Ask, name: str) -> int:
    rows = ask("SELECT value FROM sequences WHERE name=?", (name,))
    return int(rows[0][0]) if rows else 0


def _check_horizon(ask: _Ask, since: int) -> None:
    horizon = _sequence(ask, _HORIZON)
    if 0 < since < horizon:
        raise Conflict(
            f"changes since revision {since} are not kept any more (only since {horizon}); "
            "read the objects again and watch from the store's revision"
        )


def _body(obj: Resource) -> str:
    return KINDS.of(obj).encode(obj).decode()


def _differ_in_spec(one: Resource, other: Resource) -> bool:
    # Most writes are of a status and have the stored object's own spec.
    if getattr(one, "spec", None) is getattr(other, "spec", None):
        return False
    return one.model_dump_json(include={"spec"}) != other.model_dump_json(include={"spec"})


def _title(kind: type[Resource], account: str, name: str) -> str:
    return f"{kind.kind} {name!r}" + (f" of account {account!r}" if account else "")
