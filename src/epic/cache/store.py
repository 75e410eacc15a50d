# SPDX-License-Identifier: Apache-2.0
"""The control plane's store: reads come from the cache, and transactions are commits of the object store."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress

from epic.cache.feed import Cache, FedKind
from epic.cache.history import EVERY_KIND, History
from epic.cache.kinds import fed_kind
from epic.cache.loop_thread import LoopThread
from epic.cache.overlay import SEQUENCE, OverlayTransaction, SnapshotReader, Written
from epic.cache.views import Delta, Snapshot
from epic.errors import (
    Conflict,
    Damaged,
    EpicError,
    NotFound,
    NotWritable,
    OutcomeUnknown,
    StorageFull,
    Unavailable,
)
from epic.kinds.registry import KINDS
from epic.store.compaction import keep_compacted
from epic.store.embedded.engine import SqliteEngine
from epic.store.engine import Committed
from epic.store.health import CANNOT_WRITE, IS_DAMAGED, Health
from epic.store.interface import Change
from epic.store.kinds import schema_of
from epic.store.location import StoreLocation, open_engine
from epic.store.object_store import ObjectStore
from epic.store.objects import CommitConflict, Stored
from epic.store.schema import Schema, StoredKind
from epic.supervise import keep_running

log = logging.getLogger(__name__)

_LOCK_SECONDS = 5.0
"""How long a write waits for another one of this process."""
_IN_TROUBLE_SECONDS = 0.1
"""The same while writes fail anyway."""
_REACH_SECONDS = 10.0
"""How long after a commit its own process may take to hear of it."""
_CLOSE_SECONDS = 30.0
"""How long closing waits for the write that has begun."""


class CachedStore(SnapshotReader):
    """Methods may be called from any thread but its own; reading never waits."""

    def __init__(self, location: StoreLocation) -> None:
        """Open the store and read everything; raises Unavailable, StorageFull and Damaged."""
        self.location = location
        self._lock = threading.Lock()
        self._state = threading.Lock()
        self._watchers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._writes = Health(location.title, "written")
        self._is_closed = False
        self._writer = secrets.token_hex(8)
        self._thread = LoopThread("store")
        try:
            self._engine = self._thread.call(open_engine(location))
        except BaseException:
            self._thread.stop()
            raise
        self._store = ObjectStore(self._engine, _schema())
        self._cache = Cache(self._store, [*map(fed_kind, KINDS), FedKind(SEQUENCE, _read_number)])
        self._snapshot = self._cache.snapshot
        self._history = History(self._snapshot)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Finish what is being written and give back all resources. Later writes raise NotWritable."""
        if self._is_closed:
            return
        self._is_closed = True
        if not self._lock.acquire(timeout=_CLOSE_SECONDS):
            # SQLite ends the process when a connection is closed that another thread uses.
            log.error(
                "%s is left open: a write has not ended for %.0f s", self.location.title, _CLOSE_SECONDS
            )
            return
        try:
            # What goes on asks the store, which answers nobody any more then.
            try:
                self._thread.end_work()
            finally:
                self._thread.call(self._store.close())
                self._thread.stop()
        finally:
            self._lock.release()

    @property
    def snapshot(self) -> Snapshot:
        """The newest, which has all that this process wrote."""
        return self._snapshot

    @property
    def revision(self) -> int:
        """The revision of the newest durable change that is known here."""
        return self._snapshot.revision

    @property
    def is_writable(self) -> bool:
        """Whether the last write could be done, as far as that was the store's doing."""
        return not self._writes.failing

    @contextmanager
    def transaction(self) -> Iterator[OverlayTransaction]:
        """Begin a write; it commits when the block ends, and nothing is written when the block raises.

        Raises NotWritable, and in etcd Conflict when another process has written meanwhile.
        """
        with self._locked() as seconds, self._alone(seconds):
            transaction = OverlayTransaction(self._snapshot, self._past, self._writer)
            yield transaction
            written = transaction.finish()
            if written is not None:
                done = self._commit(written)
                transaction.renumber(done.revision, done.of)

    def changes(self, since: int) -> Sequence[Change]:
        """Every change after revision `since`, the newest of each object, in order; raises Conflict."""
        return self._changes(since)[1]

    async def watch(self, since: int) -> AsyncGenerator[Change, None]:
        """Every change after revision `since`, in order, for ever."""
        async with aclosing(self.watch_batches(since)) as batches:
            async for _, changes in batches:
                for change in changes:
                    yield change

    async def watch_batches(self, since: int) -> AsyncGenerator[tuple[int, Sequence[Change]], None]:
        """The same, with the revision up to which they are all, each time that there is a later one."""
        changed = asyncio.Event()
        self._watchers[changed] = asyncio.get_running_loop()
        try:
            while True:
                changed.clear()
                revision, changes = self._changes(since)
                if revision > since:
                    since = revision
                    yield revision, changes
                else:
                    await changed.wait()
        finally:
            del self._watchers[changed]

    def _begin(self) -> None:
        self._thread.begin(keep_compacted(self._store), "compaction")
        revision = self._thread.call(self._store.revision())
        self._cache.follow(self._show)
        self._thread.begin(keep_running("the cache", self._cache.run), "cache")
        self._thread.call(self._cache.reach(revision))
        with self._state:
            self._history = History(self._snapshot)

    def _show(self, snapshot: Snapshot, deltas: Sequence[Delta]) -> None:
        """Let everybody see the snapshot. Called in the store's thread."""
        with self._state:
            self._history.note(snapshot, deltas)
            self._snapshot = snapshot
        for event, loop in list(self._watchers.items()):
            with suppress(RuntimeError):  # the watcher's loop has ended
                loop.call_soon_threadsafe(event.set)

    def _changes(self, since: int) -> tuple[int, Sequence[Change]]:
        with self._state:
            snapshot = self._snapshot
            return snapshot.revision, self._history.changes(since, snapshot, EVERY_KIND)

    def _past(self, since: int, snapshot: Snapshot, kinds: frozenset[str]) -> Sequence[Change]:
        with self._state:
            return self._history.changes(since, snapshot, kinds)

    @contextmanager
    def _locked(self) -> Iterator[float]:
        """Be the one of this process who writes; for how many seconds other processes may be waited for."""
        seconds = _IN_TROUBLE_SECONDS if self._writes.failing else _LOCK_SECONDS
        if not self._lock.acquire(timeout=seconds):
            error = NotWritable(CANNOT_WRITE, f"a write has not ended for {seconds:.0f} s")
            self._writes.failed(error)
            raise error
        try:
            if self._is_closed:
                raise NotWritable(CANNOT_WRITE, "the store is closed")
            # They may have begun to fail in the meantime.
            yield 0.0 if self._writes.failing else seconds
        finally:
            self._lock.release()

    @contextmanager
    def _alone(self, seconds: float) -> Iterator[None]:
        """Be the one of all processes who writes, and know what they wrote, where that is possible."""
        if not isinstance(self._engine, SqliteEngine):
            yield
            return
        try:
            with self._failing():
                revision = self._engine.direct.begin(seconds)
            if revision > self.revision:
                self._engine.wake_watchers()
                self._thread.call(self._reach(revision))
            yield
        finally:
            self._engine.direct.end()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Tell who asked, and the log once, that it is not possible."""
        try:
            yield
        except (Unavailable, Damaged) as error:
            explained = error if isinstance(error, NotWritable) and error.detail else _explain(error)
            self._writes.failed(explained)
            raise explained from error

    def _commit(self, written: Written) -> Committed:
        """Make it durable and see it in the snapshot."""
        with self._failing():
            done = self._write(written)
        revision = done.revision
        self._writes.succeeded()
        expected = revision == written.snapshot.revision
        if not (expected and self._cache.adopt(written.base, written.snapshot, written.deltas)):
            if isinstance(self._engine, SqliteEngine):
                self._engine.wake_watchers()
            self._thread.call(self._reach(revision))
        return done

    def _write(self, written: Written) -> Committed:
        operations = written.operations
        try:
            if isinstance(self._engine, SqliteEngine):
                outcome = self._engine.direct.commit(self._store.prepare(operations))
                return self._store.conclude(operations, outcome)
            return self._thread.call(self._store.carry_out(operations))
        except OutcomeUnknown as error:
            return self._thread.call(self._find(written, error))
        except CommitConflict as conflict:
            if any(mismatch.key == written.mark.key for mismatch in conflict.mismatches):
                raise Conflict("another process has written meanwhile; read again and repeat") from conflict
            raise

    async def _reach(self, revision: int) -> None:
        try:
            async with asyncio.timeout(_REACH_SECONDS):
                await self._cache.reach(revision)
        except TimeoutError:
            log.warning("revision %d is written, but not heard of yet", revision)

    async def _find(self, written: Written, error: OutcomeUnknown) -> Committed:
        """The commit of which it was not heard whether it happened; raises NotWritable."""
        try:
            found = await self._store.get(written.mark.key)
        except NotFound:  # it would have been the first
            raise NotWritable(CANNOT_WRITE, error.whole) from error
        if (found.body, found.labels) == (written.mark.body, written.mark.labels):
            return Committed(found.revision)
        raise NotWritable(CANNOT_WRITE, error.whole)


def _schema() -> Schema:
    return schema_of(KINDS, StoredKind(SEQUENCE.kind))


def _read_number(stored: Stored) -> int:
    return int(json.loads(stored.body))


def _explain(error: EpicError) -> EpicError:
    """The error as who asked is told, with the store's words as its detail."""
    if isinstance(error, Damaged):
        return Damaged(IS_DAMAGED, error.whole)
    if isinstance(error, StorageFull):
        return StorageFull(CANNOT_WRITE, error.whole)
    return NotWritable(CANNOT_WRITE, error.whole)
