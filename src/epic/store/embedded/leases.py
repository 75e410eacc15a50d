# SPDX-License-Identifier: Apache-2.0
"""Leases on one host: a lock of the kernel's, which ends with its process, and an object that fences."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from epic.store.embedded.database import give_to_owner, private_directory

_RETRY_SECONDS = 0.2


class FileLock:
    """An exclusive lock on a file of this host."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    async def wait_for(cls, path: Path, database: Path) -> FileLock:
        """Take the lock as soon as it is free."""
        private_directory(path.parent, database)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            give_to_owner(path, database)
            while not try_lock(descriptor, fcntl.LOCK_EX):  # noqa: ASYNC110
                await asyncio.sleep(_RETRY_SECONDS)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def unlock(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)


class FileLease:
    """A lease that cannot be lost while its process lives."""

    def __init__(self, lock: FileLock, revision: int, remove: Callable[[], Awaitable[object]]) -> None:
        self._lock = lock
        self._revision = revision
        self._remove = remove
        self._ended = asyncio.Event()

    @property
    def revision(self) -> int:
        """Of the lease's object."""
        return self._revision

    async def wait_lost(self) -> None:
        """Return when it was released."""
        await self._ended.wait()

    async def release(self) -> None:
        """Remove the object, then let another have the lock."""
        if self._ended.is_set():
            return
        self._ended.set()
        try:
            await self._remove()
        finally:
            self._lock.unlock()


def try_lock(descriptor: int, kind: int) -> bool:
    """Lock an open file if that needs no waiting; whether it is ours now."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
