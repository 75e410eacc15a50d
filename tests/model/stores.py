# SPDX-License-Identifier: Apache-2.0
"""The control plane's store in a file, as tests open it."""

from __future__ import annotations

from pathlib import Path

from epic.cache.store import CachedStore
from epic.store.location import StoreLocation


def open_store(path: Path) -> CachedStore:
    """The store in this file; there need not be one yet."""
    return CachedStore(StoreLocation(sqlite=path))
