# SPDX-License-Identifier: Apache-2.0
"""The engine in one SQLite file (WAL, fsync at each group of commits)."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import time
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Self

from epic.errors import Unavailable
from epic.store.embedded import queries
from epic.store.embedded.database import beside, lock_file, prepare
from epic.store.embedded.direct import DirectWriter
from epic.store.embedded.doorbell import Doorbell
from epic.store.embedded.leases import FileLease, FileLock, try_lock
from epic.store.embedded.readers import Readers
from epic.store.embedded.writer import Writer
from epic.store.engine import Changes, CommitLimits, Committed, Entry, Refused, Scan, Span, Transaction

_LOOK_SECONDS = 1.0
_BOOKMARK_SECONDS = 5.0
_FORGOTTEN_AT_ONCE = 500


class SqliteEngine:
    """The database in the file `path`, which only its owner may read. Several processes may have it open."""

    limits = CommitLimits(operations=10_000, bytes=64 * 1024 * 1024)

    def __init__(self, path: Path, in_use: int) -> None:
        self._path = path
        self._in_use = in_use
        self._doorbell = Doorbell(beside(path, ".bells"), path)
        self._readers = Readers(path)
        self._writer = Writer(path, self._doorbell.ring)
        self._direct = DirectWriter(path, self._doorbell.ring_others)

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Check the file and bring it up to date, or make it; raises Damaged, StorageFull, Unavailable."""
        in_use = await asyncio.to_thread(_open_prepared, path)
        try:
            return cls(path, in_use)
        except BaseException:
            os.close(in_use)
            raise

    async def revision(self) -> int:
        """The newest durable revision."""
        return await self._readers.read(queries.revision)

    async def read(self, path: str) -> Entry | None:
        """What is at the path now."""
        return await self._readers.read(partial(queries.read, path=path))

    async def scan(self, span: Span, limit: int, revision: int | None) -> Scan:
        """At most `limit` entries as they were at `revision` (None: now)."""
        return await self._readers.read(partial(queries.scan, span=span, limit=limit, at=revision))

    async def commit(self, transaction: Transaction) -> Committed | Refused:
        """Write durably, all or nothing."""
        return await self._writer.write(partial(queries.commit, transaction=transaction))

    @property
    def direct(self) -> DirectWriter:
        """Commits in the calling thread, of one at a time: there is no loop to wait for.

        Who calls knows what it wrote: watchers of this engine are not woken, and come to it by and by.
        """
        return self._direct

    def wake_watchers(self) -> None:
        """Let watchers of this engine look now. May be called from any thread."""
        self._doorbell.ring_own()

    async def changes(self, span: Span, since: int) -> AsyncGenerator[Changes, None]:
        """All changes after revision `since`, for ever."""
        told = time.monotonic()
        with self._doorbell.listen() as bell:
            while True:
                bell.clear()
                found = await self._readers.read(partial(queries.changes, span=span, since=since))
                is_bookmark = time.monotonic() - told >= _BOOKMARK_SECONDS
                if found.changes or is_bookmark:
                    told = time.monotonic()
                    yield found
                if found.revision == since:
                    await _wait(bell, _LOOK_SECONDS)
                since = found.revision

    async def compact(self, revision: int) -> None:
        """Forget what was superseded before `revision`, a little at a time: commits go in between."""
        await self._writer.write(partial(queries.begin_compaction, to=revision), guarded=True)
        removed = _FORGOTTEN_AT_ONCE
        while removed == _FORGOTTEN_AT_ONCE:
            removed = await self._writer.write(partial(queries.forget, limit=_FORGOTTEN_AT_ONCE))

    async def acquire(self, path: str, value: bytes, seconds: float) -> FileLease:  # noqa: ARG002
        """Wait until nobody holds the path; when its holder dies the kernel frees it at once."""
        name = hashlib.sha256(path.encode()).hexdigest()[:32]
        lock = await FileLock.wait_for(beside(self._path, ".leases") / name, self._path)
        try:
            left = await self.read(path)
            expected = {path: left.revision if left else 0}
            written = await self.commit(Transaction(expected, puts={path: value}))
            if isinstance(written, Refused):
                raise Unavailable(f"{path}: somebody writes it without holding it")
        except BaseException:
            lock.unlock()
            raise
        remove = Transaction({path: written.revision}, deletes=frozenset((path,)))
        return FileLease(lock, written.revision, partial(self.commit, remove))

    async def close(self) -> None:
        """Finish the writes that wait, then give back all resources."""
        await self._writer.close()
        self._direct.close()
        await asyncio.to_thread(self._readers.close)
        self._doorbell.close()
        os.close(self._in_use)


def _open_prepared(path: Path) -> int:
    in_use = lock_file(path)
    try:
        if not try_lock(in_use, fcntl.LOCK_SH):
            raise Unavailable(f"{path}: a backup is being restored into it")
        prepare(path)
    except BaseException:
        os.close(in_use)
        raise
    return in_use


async def _wait(bell: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await bell.wait()
    except TimeoutError:
        pass
