# SPDX-License-Identifier: Apache-2.0
"""The store's questions and writes in SQL, each on one connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager

from epic.errors import Compacted, Invalid
from epic.store.engine import Change, Changes, Committed, Entry, Refused, Scan, Span, Transaction

# How much is read at once.
_CHANGES = 500
_BYTES = 4 * 1024 * 1024
_ID_BITS = 16

_CURRENT = "SELECT id, value FROM versions WHERE until IS NULL AND path = ?"
_SCAN_NOW = """
  SELECT path, id, value FROM versions INDEXED BY current
  WHERE until IS NULL AND path >= ? AND path < ? ORDER BY path
"""
# A deletion was superseded at its own revision. Values are left out: they would all be sorted.
_SCAN_AT = """
  SELECT path, id, NULL FROM versions INDEXED BY current
  WHERE until IS NULL AND path >= :start AND path < :end AND id < :above
  UNION ALL
  SELECT path, id, NULL FROM versions INDEXED BY superseded
  WHERE until > :revision AND path >= :start AND path < :end AND id < :above AND until > id >> 16
  ORDER BY path
"""
_VALUE = "SELECT value FROM versions WHERE id = ?"
_CHANGES_SINCE = """
  SELECT id, path, value FROM versions
  WHERE id >= ? AND path >= ? AND path < ? ORDER BY id
"""


def revision(connection: sqlite3.Connection) -> int:
    """The newest revision."""
    return _counter(connection, "revision")


def read(connection: sqlite3.Connection, path: str) -> Entry | None:
    """What is at the path now."""
    row = connection.execute(_CURRENT, (path,)).fetchone()
    return None if row is None else Entry(path, row[0] >> _ID_BITS, row[1])


def scan(connection: sqlite3.Connection, span: Span, limit: int, at: int | None) -> Scan:
    """Entries as of a revision, from one snapshot; fewer than `limit` when they are large."""
    with _snapshot(connection):
        now = revision(connection)
        if at is None or at == now:
            cursor = connection.execute(_SCAN_NOW, (span.start, span.end))
        else:
            _check_reached(at, now)
            _check_kept(connection, at)
            values = {"start": span.start, "end": span.end, "revision": at, "above": (at + 1) << _ID_BITS}
            cursor = connection.execute(_SCAN_AT, values)
        entries: list[Entry] = []
        size = 0
        with closing(cursor):
            for path, identity, found in cursor:
                if len(entries) >= limit or size >= _BYTES:
                    return Scan(entries, now if at is None else at, more=True)
                value = connection.execute(_VALUE, (identity,)).fetchone()[0] if found is None else found
                entries.append(Entry(path, identity >> _ID_BITS, value))
                size += len(value)
    return Scan(entries, now if at is None else at, more=False)


def changes(connection: sqlite3.Connection, span: Span, since: int) -> Changes:
    """The next changes after a revision, whole commits."""
    with _snapshot(connection):
        now = revision(connection)
        _check_reached(since, now)
        _check_kept(connection, since + 1)
        found: list[Change] = []
        size = 0
        values = ((since + 1) << _ID_BITS, span.start, span.end)
        with closing(connection.execute(_CHANGES_SINCE, values)) as cursor:
            for identity, path, value in cursor:
                is_enough = len(found) >= _CHANGES or size >= _BYTES
                if is_enough and identity >> _ID_BITS > found[-1].revision:
                    return Changes(found[-1].revision, found)
                found.append(Change(path, identity >> _ID_BITS, value))
                size += len(value or b"")
    return Changes(now, found)


def commit(connection: sqlite3.Connection, transaction: Transaction) -> Committed | Refused:
    """Compare and write; the SQL transaction around it is the caller's."""
    current = {path: connection.execute(_CURRENT, (path,)).fetchone() for path in transaction.expected}
    actual = {path: row[0] >> _ID_BITS if row else 0 for path, row in current.items()}
    if actual != transaction.expected:
        return Refused(actual)
    now = revision(connection)
    # To delete what is not there is no change.
    deletes = [path for path in transaction.deletes if actual[path]]
    if not transaction.puts and not deletes:
        return Committed(now)
    now += 1
    superseded = [(now, current[path][0]) for path in (*transaction.puts, *deletes) if actual[path]]
    connection.executemany("UPDATE versions SET until = ? WHERE id = ?", superseded)
    written: list[tuple[str, bytes | None, int | None]] = [
        *((path, value, None) for path, value in transaction.puts.items()),
        *((path, None, now) for path in deletes),
    ]
    connection.executemany(
        "INSERT INTO versions (id, until, path, value) VALUES (?, ?, ?, ?)",
        [((now << _ID_BITS) + i, until, path, value) for i, (path, value, until) in enumerate(written)],
    )
    _set_counter(connection, "revision", now)
    return Committed(now)


def begin_compaction(connection: sqlite3.Connection, to: int) -> None:
    """Let nobody read what was superseded before a revision."""
    _check_reached(to, revision(connection))
    if to > _counter(connection, "compacted"):
        _set_counter(connection, "compacted", to)


def forget(connection: sqlite3.Connection, limit: int) -> int:
    """Remove at most `limit` versions that nobody may read any more; how many."""
    before = _counter(connection, "compacted")
    cursor = connection.execute(
        "DELETE FROM versions WHERE id IN (SELECT id FROM versions WHERE until < ? LIMIT ?)", (before, limit)
    )
    return cursor.rowcount


def fill(connection: sqlite3.Connection, entries: Iterable[tuple[str, bytes]], after: int) -> int:
    """Fill an empty database, at revisions above `after`; the newest. There is no history before it."""
    now = after
    for path, value in entries:
        now += 1
        connection.execute(
            "INSERT INTO versions (id, path, value) VALUES (?, ?, ?)", (now << _ID_BITS, path, value)
        )
    _set_counter(connection, "revision", now)
    _set_counter(connection, "compacted", now)
    return now


def _set_counter(connection: sqlite3.Connection, name: str, value: int) -> None:
    connection.execute("UPDATE counters SET value = ? WHERE name = ?", (value, name))


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


def _check_kept(connection: sqlite3.Connection, wanted: int) -> None:
    oldest = _counter(connection, "compacted")
    if wanted < oldest:
        raise Compacted(f"revision {wanted} is not kept any more, only those from {oldest} on; list again")


def _check_reached(wanted: int, now: int) -> None:
    if wanted > now:
        raise Invalid(f"revision {wanted} is not reached yet; the newest is {now}")


def _counter(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
    return int(value)
