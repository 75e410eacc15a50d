# SPDX-License-Identifier: Apache-2.0
"""What a host does to a database: errors of SQLite's that are real."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from epic.store.sqlite import SqliteStore


@contextmanager
def full(store: SqliteStore) -> Iterator[None]:
    """The database may not grow."""
    (before,) = store._writer.execute("PRAGMA max_page_count").fetchone()
    store._writer.execute("PRAGMA max_page_count=1")
    try:
        yield
    finally:
        store._writer.execute(f"PRAGMA max_page_count={before}")


@contextmanager
def read_only(store: SqliteStore) -> Iterator[None]:
    """The file system takes no writes."""
    store._writer.execute("PRAGMA query_only=1")
    try:
        yield
    finally:
        store._writer.execute("PRAGMA query_only=0")


@contextmanager
def failing(store: SqliteStore) -> Iterator[None]:
    """The disk refuses to write, with another error than that it is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def busy(store: SqliteStore) -> Iterator[None]:
    """Another process is in the middle of a write."""
    with closing(sqlite3.connect(store._path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


TROUBLES = {"FULL": full, "READONLY": read_only, "IOERR": failing, "BUSY": busy}
