# SPDX-License-Identifier: Apache-2.0
"""Putting a backup in the place of a database, whole or broken."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

from epic.errors import Unavailable
from epic.store.embedded import queries
from epic.store.embedded.database import beside, connect, explain, lock_file, prepare, refuse_foreign
from epic.store.embedded.leases import try_lock

_LOGS = ("-wal", "-shm")


def restore(path: Path, entries: Iterable[tuple[str, bytes]], after: int) -> int:
    """Make these the whole content of the store, at revisions above `after`; the newest one.

    What was there is kept as PATH.replaced. Raises Unavailable while a process has the store open, or Damaged
    for a database of something else. A crash leaves the old database or the new one.
    """
    refuse_foreign(path)
    in_use = lock_file(path)
    try:
        if not try_lock(in_use, fcntl.LOCK_EX):
            raise Unavailable(f"{path}: a process has the store open; stop EPIC's control plane first")
        draft = beside(path, ".restoring")
        revision = _write_draft(draft, entries, after)
        _keep_replaced(path)
        draft.replace(path)
        _sync(path.parent)
    except (OSError, sqlite3.Error) as error:
        raise explain(error, path) from error
    finally:
        os.close(in_use)
    return revision


def _write_draft(draft: Path, entries: Iterable[tuple[str, bytes]], after: int) -> int:
    for left in (draft, *(beside(draft, log) for log in _LOGS)):
        left.unlink(missing_ok=True)
    prepare(draft)
    with closing(connect(draft)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        revision = queries.fill(connection, entries, after)
        connection.execute("COMMIT")
    # The last connection wrote its log into the file and removed it.
    _sync(draft)
    return revision


def _keep_replaced(path: Path) -> None:
    if not path.exists():
        return
    # A log that stays behind would be taken for the new database's.
    with suppress(sqlite3.Error), closing(connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    kept = beside(path, ".replaced")
    for suffix in ("", *_LOGS):
        beside(kept, suffix).unlink(missing_ok=True)
    for log in _LOGS:
        with suppress(FileNotFoundError):
            beside(path, log).rename(beside(kept, log))
    kept.hardlink_to(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
