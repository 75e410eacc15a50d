# SPDX-License-Identifier: Apache-2.0
"""Damages stored objects behind the back of who has the store open."""

from __future__ import annotations

import sqlite3
import time
import zlib
from contextlib import closing
from pathlib import Path

from epic.cache.store import CachedStore
from epic.model.base import Resource
from epic.store.embedded.direct import DirectWriter
from epic.store.engine import Transaction
from epic.store.objects import Key


def damage(store: CachedStore, obj: Resource, word: bytes = b"") -> None:
    """Let an object of a store in a file not fit its checksum from now on: a byte is not what it was.

    It is the first one of the checksum, or of a word of the object. Who has the store open does not notice
    before it reads it anew.
    """
    assert store.location.sqlite is not None
    with closing(sqlite3.connect(store.location.sqlite, isolation_level=None)) as connection:
        broken = bytearray(_value(connection, obj))
        broken[broken.index(word)] ^= 1
        update = "UPDATE versions SET value = ? WHERE path = ? AND until IS NULL"
        connection.execute(update, (bytes(broken), _path(obj)))


def write_newer(store: CachedStore, obj: Resource) -> None:
    """Let another process, of a newer EPIC, write an object: who has the store open hears of it."""
    assert store.location.sqlite is not None
    with closing(sqlite3.connect(store.location.sqlite, isolation_level=None)) as connection:
        _, _, body = _value(connection, obj).partition(b"\n")
    content = b'{"form":99}\n' + body
    writer = DirectWriter(Path(store.location.sqlite), lambda: None)
    try:
        writer.begin(10)
        path = _path(obj)
        put = {path: b"%08x %b" % (zlib.crc32(content), content)}
        writer.commit(Transaction({path: obj.metadata.resource_version}, put))
    finally:
        writer.close()


def wait_until_unreadable(store: CachedStore, kind: type[Resource]) -> None:
    """Return when who has the store open has heard that an object of the kind cannot be read."""
    end = time.monotonic() + 20
    while not store.unreadable(kind):
        assert time.monotonic() < end, f"no {kind.kind} is unreadable"
        time.sleep(0.01)


def _path(obj: Resource) -> str:
    return Key(obj.kind, obj.account, obj.name).path


def _value(connection: sqlite3.Connection, obj: Resource) -> bytes:
    select = "SELECT value FROM versions WHERE path = ? AND until IS NULL"
    (value,) = connection.execute(select, (_path(obj),)).fetchone()
    return bytes(value)
