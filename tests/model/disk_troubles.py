# SPDX-License-Identifier: Apache-2.0
"""What a host does to a database: errors of SQLite's that are real."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from epic.cache.store import CachedStore
from epic.store.embedded import direct


@contextmanager
def _opened_with(store: CachedStore, pragma: str) -> Iterator[None]:
    """Connections that write are opened anew, with this setting."""
    connect = direct.connect

    def connect_so(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute(f"PRAGMA {pragma}")
        return connection

    direct.connect = connect_so
    store._engine._direct.close()
    try:
        yield
    finally:
        direct.connect = connect
        store._engine._direct.close()


@contextmanager
def full(store: CachedStore) -> Iterator[None]:
    """The database may not grow."""
    with _opened_with(store, "max_page_count=1"):
        yield


@contextmanager
def read_only(store: CachedStore) -> Iterator[None]:
    """The file system takes no writes."""
    with _opened_with(store, "query_only=1"):
        yield


@contextmanager
def failing(store: CachedStore) -> Iterator[None]:
    """The disk refuses to write, with another error than that it is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def busy(store: CachedStore) -> Iterator[None]:
    """Another process is in the middle of a write."""
    with closing(sqlite3.connect(store.location.sqlite, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


TROUBLES = {"FULL": full, "READONLY": read_only, "IOERR": failing, "BUSY": busy}
