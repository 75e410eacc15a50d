# SPDX-License-Identifier: Apache-2.0
"""Every engine that the suite of the store runs on."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from etcd_server import EtcdServer
from store_sites import SCHEMA, EtcdSite, SqliteSite, StoreSite

from epic.cache.store import CachedStore
from epic.store.location import StoreLocation
from epic.store.object_store import ObjectStore


@pytest.fixture
async def sqlite_site(tmp_path: Path) -> AsyncIterator[SqliteSite]:
    """A file."""
    site = SqliteSite(tmp_path / "objects.db")
    yield site
    await site.close_all()


@pytest.fixture
async def etcd_site(etcd: EtcdServer) -> AsyncIterator[EtcdSite]:
    """A prefix that nobody used before."""
    site = EtcdSite(etcd.settings(f"/test-{secrets.token_hex(4)}/"))
    yield site
    await site.close_all()


@pytest.fixture(params=["sqlite", "etcd"])
def site(request: pytest.FixtureRequest) -> StoreSite:
    """A database that is empty, and can be opened again and again."""
    found: StoreSite = request.getfixturevalue(f"{request.param}_site")
    return found


@pytest.fixture
async def store(site: StoreSite) -> ObjectStore:
    """An empty store."""
    return await site.open(SCHEMA)


@pytest.fixture(params=["sqlite", "etcd"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], CachedStore]]:
    """Opens the control plane's store on one empty database, again and again, as other processes would."""
    location = StoreLocation(sqlite=tmp_path / "epic.db")
    if request.param == "etcd":
        etcd: EtcdServer = request.getfixturevalue("etcd")
        location = StoreLocation(etcd=etcd.settings(f"/test-{secrets.token_hex(4)}/"))
    opened: list[CachedStore] = []

    def open_store() -> CachedStore:
        opened.append(CachedStore(location))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()
