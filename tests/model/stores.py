# SPDX-License-Identifier: Apache-2.0
"""The control plane's store in a file, as tests open it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakSet

from epic.cache.store import CachedStore
from epic.store.location import StoreLocation

_opened: WeakSet[CachedStore] = WeakSet()


def open_store(path: Path) -> CachedStore:
    """The store in this file; there need not be one yet. The test that opens it need not close it."""
    store = CachedStore(StoreLocation(sqlite=path))
    _opened.add(store)
    return store


@contextmanager
def stores_closed() -> Iterator[None]:
    """Close what is opened meanwhile: a store's threads would go on among other tests."""
    before = WeakSet(_opened)
    yield
    for store in _opened - before:
        store.close()
