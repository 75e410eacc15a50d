# SPDX-License-Identifier: Apache-2.0
"""Every engine that the suite of the store runs on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from store_sites import SCHEMA, SqliteSite, StoreSite

from epic.store.object_store import ObjectStore


@pytest.fixture(params=["sqlite"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreSite]:
    """A database that is empty, and can be opened again and again."""
    site = SqliteSite(tmp_path / "objects.db")
    yield site
    await site.close_all()


@pytest.fixture
async def store(site: StoreSite) -> ObjectStore:
    """An empty store."""
    return await site.open(SCHEMA)
