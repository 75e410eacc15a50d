# SPDX-License-Identifier: Apache-2.0
"""Damages stored objects behind the back of who has the store open: a byte is not what it was."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from epic.cache.store import CachedStore
from epic.model.base import Resource
from epic.store.objects import Key


def damage(store: CachedStore, obj: Resource) -> None:
    """Let an object of a store in a file not fit its checksum from now on."""
    path = Key(obj.kind, obj.account, obj.name).path
    assert store.location.sqlite is not None
    with closing(sqlite3.connect(store.location.sqlite, isolation_level=None)) as connection:
        select = "SELECT value FROM versions WHERE path = ? AND until IS NULL"
        (value,) = connection.execute(select, (path,)).fetchone()
        broken = bytearray(value)
        broken[0] ^= 1
        update = "UPDATE versions SET value = ? WHERE path = ? AND until IS NULL"
        connection.execute(update, (bytes(broken), path))
