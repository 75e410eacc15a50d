# SPDX-License-Identifier: Apache-2.0
"""Which engine keeps the store, and where; opening it, and restoring a backup into it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

from epic.store.backup import REVISIONS_SKIPPED, BackupSummary, check_backup, read_backup
from epic.store.embedded.engine import SqliteEngine
from epic.store.embedded.restoring import restore as restore_sqlite
from epic.store.engine import Engine
from epic.store.etcd.engine import EtcdEngine
from epic.store.etcd.settings import EtcdSettings
from epic.store.etcd.trying import try_etcd


class StoreLocation(BaseModel):
    """A file of this host's, or an etcd cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sqlite: Path | None = None
    etcd: EtcdSettings | None = None

    @property
    def title(self) -> str:
        """What operators know it by."""
        return str(self.sqlite) if self.etcd is None else f"etcd at {self.etcd.endpoints[0]}"

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.sqlite is None) == (self.etcd is None):
            raise ValueError("store: expected either sqlite (a path) or etcd")
        return self


async def open_engine(location: StoreLocation) -> Engine:
    """The engine; raises Unavailable, StorageFull and Damaged."""
    if location.sqlite is not None:
        return await SqliteEngine.open(location.sqlite)
    assert location.etcd is not None  # noqa: S101
    return await EtcdEngine.open(location.etcd)


async def try_location(location: StoreLocation) -> bool:
    """Whether there is a store already; raises Invalid, Unavailable and Damaged if none can be there."""
    if location.sqlite is not None:
        return location.sqlite.exists() and location.sqlite.stat().st_size > 0
    assert location.etcd is not None  # noqa: S101
    return await try_etcd(location.etcd)


async def restore_backup(location: StoreLocation, backup: Path) -> BackupSummary:
    """Make the backup the whole content of the store. All watchers have to list again.

    Every revision becomes greater than any that was ever given out, so that nobody who read before can
    overwrite what is there now.
    """
    summary = await asyncio.to_thread(check_backup, backup)
    after = summary.revision + REVISIONS_SKIPPED
    if location.sqlite is not None:
        await asyncio.to_thread(restore_sqlite, location.sqlite, read_backup(backup), after)
        return summary
    assert location.etcd is not None  # noqa: S101
    engine = await EtcdEngine.open(location.etcd, restoring=True)
    try:
        await engine.replace_all(read_backup(backup), after)
    finally:
        await engine.close()
    return summary
