# SPDX-License-Identifier: Apache-2.0
"""The SQLite file: opening it, its layout and migrations, its integrity, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from epic.errors import Damaged, EpicError, OutcomeUnknown, StorageFull, Unavailable

_APPLICATION_ID = 0x45504943  # "EPIC"
_LOCK_SECONDS = 10.0
_CHECKPOINT_PAGES = 2000
_KEPT_WAL_BYTES = 16 * 1024 * 1024

# Step n brings layout n to n + 1. A version's id is its revision * 2^16 + its number in the commit.
MIGRATIONS: Sequence[Sequence[str]] = (
    (
        """
        CREATE TABLE versions (
          id INTEGER PRIMARY KEY,
          until INTEGER, -- the revision that superseded it; of a deletion, its own; NULL: it is current
          path TEXT NOT NULL,
          value BLOB -- NULL: deleted
        ) STRICT
        """,
        "CREATE UNIQUE INDEX current ON versions (path, id) WHERE until IS NULL",
        "CREATE INDEX superseded ON versions (until) WHERE until IS NOT NULL",
        "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        "INSERT INTO counters VALUES ('revision', 0), ('compacted', 0)",
    ),
)


def connect(path: Path) -> sqlite3.Connection:
    """A connection for use by any one thread at a time; transactions are begun by hand."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=_LOCK_SECONDS, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit={_KEPT_WAL_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(path: Path) -> None:
    """Make the file if there is none, check it, and bring its layout up to date.

    Raises Damaged for a file that is broken, of something else or of a newer EPIC; it is left as it is.
    """
    try:
        _create_private(path)
        connection = connect(path)
        try:
            _check(connection, path)
            _migrate(connection, path)
        finally:
            connection.close()
    except (sqlite3.Error, OSError) as error:
        raise explain(error, path) from error


def explain(error: Exception, path: Path, *, committing: bool = False) -> EpicError:
    """What an error of SQLite's or the system's means for who asked."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StorageFull(f"{path}: the disk is full; nothing of this write was stored")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Damaged(f"{path}: {error}; restore a backup")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable(f"{path}: another process has been writing for {_LOCK_SECONDS:.0f} s")
    if committing:
        return OutcomeUnknown(f"{path}: the disk failed ({error}); whether the write was stored is not known")
    return Unavailable(f"{path}: {error}")


def lock_file(path: Path) -> int:
    """The open file whose lock says that the database is in use (shared) or being replaced (exclusive)."""
    lock = beside(path, ".lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        give_to_owner(lock, path.parent)
    except OSError as error:
        raise Unavailable(f"{lock}: {error.strerror}") from error
    return descriptor


def beside(path: Path, suffix: str) -> Path:
    """A file that belongs to the database."""
    return path.with_name(path.name + suffix)


def private_directory(path: Path, owner_like: Path) -> Path:
    """The directory, made if it is not there, for the owner of `owner_like` only."""
    path.mkdir(mode=0o700, exist_ok=True)
    give_to_owner(path, owner_like)
    return path


def give_to_owner(path: Path, owner_like: Path) -> None:
    """Give a file that root made to the owner of another one: a command of root's may be the first."""
    if os.geteuid() == 0:
        owner = owner_like.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _create_private(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return
    give_to_owner(path, path.parent)


def refuse_foreign(path: Path) -> None:
    """Raise Damaged for a file that is a database of something else; a broken one may be anything."""
    if path.exists():
        # Read only: opening it as ours would change it.
        location = f"{path.absolute().as_uri()}?mode=ro"
        with suppress(sqlite3.Error), closing(sqlite3.connect(location, uri=True)) as connection:
            _check_owner(connection, path)


def _check_owner(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != _APPLICATION_ID and (application or tables):
        raise Damaged(f"{path}: a database of something else; it is left as it is")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    _check_owner(connection, path)
    rows = connection.execute("PRAGMA integrity_check(3)").fetchall()
    problems = [line for (text,) in rows for line in text.splitlines() if not line.startswith("***")]
    if problems != ["ok"]:
        raise Damaged(f"{path}: {'; '.join(problems)}; it is left as it is: restore a backup")


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        (layout,) = connection.execute("PRAGMA user_version").fetchone()
        if layout > len(MIGRATIONS):
            raise Damaged(
                f"{path}: its layout {layout} is of a newer EPIC; this one reads up to {len(MIGRATIONS)}"
            )
        for step in MIGRATIONS[layout:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
        connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
