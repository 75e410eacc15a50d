# SPDX-License-Identifier: Apache-2.0
"""What SQLite's errors mean to who asks, and whether the database can be used: said when that changes."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable

from epic.errors import Damaged, EpicError, NotWritable, StorageFull, Unavailable

log = logging.getLogger(__name__)

CANNOT_WRITE = "the control plane cannot write now; repeat the request later"
CANNOT_READ = "the control plane cannot read what it has stored now; repeat the request later"
IS_DAMAGED = "what the control plane has stored is damaged; its operators can see where"
_OVER_SECONDS = 10.0
"""A disk that is nearly full takes some writes and refuses others: that is one trouble."""

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
# What comes from the host, not from a fault of ours in a statement.
_OF_THE_HOST = _DAMAGED | {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}


def explain(error: sqlite3.Error, *, writing: bool) -> EpicError | None:
    """The error as who asked is told, with SQLite's words as its detail; None: it is a fault of ours."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code not in _OF_THE_HOST:
        return None
    if code in _DAMAGED:
        return Damaged(IS_DAMAGED, str(error))
    if not writing:
        return Unavailable(CANNOT_READ, str(error))
    if code == sqlite3.SQLITE_FULL:
        return StorageFull(CANNOT_WRITE, "the disk is full")
    return NotWritable(CANNOT_WRITE, str(error))


class Health:
    """Whether something can be done with a database. Methods may be called from any thread."""

    def __init__(self, what: object, done: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = f"{what} cannot be {done}"
        self._clock = clock
        self._lock = threading.Lock()
        self._logged = False
        self._failed_at = 0.0
        self.failing = False
        """Whether it failed the last time."""

    def failed(self, error: EpicError) -> None:
        """It could not be done."""
        with self._lock:
            self.failing = True
            self._failed_at = self._clock()
            if not self._logged:
                self._logged = True
                log.error("%s: %s; it is tried again with each request", self._what, error.detail)

    def succeeded(self) -> None:
        """It was done."""
        self.failing = False
        if not self._logged:
            return
        with self._lock:
            if self._logged and self._clock() - self._failed_at >= _OVER_SECONDS:
                self._logged = False
                log.info("over: %s", self._what)
