# SPDX-License-Identifier: Apache-2.0
"""An empty store of each kind for an epic-control of tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etcd_server import EtcdServer, require_etcd

from epic.store.location import StoreLocation

ENGINES = ("sqlite", "etcd")


@contextmanager
def store_of(engine: str, directory: Path) -> Iterator[StoreLocation]:
    """A store in the directory; the test is skipped where there is no such engine."""
    if engine == "sqlite":
        yield StoreLocation(sqlite=directory / "store.db")
        return
    require_etcd()
    (directory / "etcd").mkdir()
    server = EtcdServer(directory / "etcd")
    server.start()
    try:
        yield StoreLocation(etcd=server.settings())
    finally:
        server.stop()
