# SPDX-License-Identifier: Apache-2.0
"""Reading takes a fixed number of connections, whatever the number of threads."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from epic.errors import Unavailable
from epic.model.base import Metadata
from epic.model.resources import Account
from epic.store import sqlite
from epic.store.readers import READERS, Readers
from epic.store.sqlite import SqliteStore

BURST = 50


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteStore]:
    monkeypatch.setattr(sqlite, "_LOCK_SECONDS", 0.05)
    with closing(SqliteStore(tmp_path / "epic.db")) as store:
        with store.transaction() as transaction:
            transaction.create(Account(metadata=Metadata(name="a")))
        yield store


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def burst(do: Callable[[], object]) -> None:
    """Do it in new threads that all live at once."""
    all_here = threading.Barrier(BURST)

    def run() -> None:
        all_here.wait(30)
        do()
        all_here.wait(30)

    threads = [threading.Thread(target=run) for _ in range(BURST)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_however_many_threads_ask_the_number_of_descriptors_is_bounded(store: SqliteStore) -> None:
    before = descriptors()
    found: list[str] = []
    for _ in range(3):
        burst(lambda: found.extend(account.name for account in store.list(Account)))
    assert found == ["a"] * 3 * BURST
    # A reader has the database and its log open.
    assert descriptors() <= before + 2 * READERS


def test_readers_that_are_all_stuck_refuse_instead_of_keeping_the_next(store: SqliteStore) -> None:
    stuck = [store._readers._free.get() for _ in range(READERS)]
    with pytest.raises(Unavailable, match="cannot read") as refused:
        store.get(Account, "", "a")
    assert "no reader has become free" in refused.value.detail
    for reader in stuck:
        store._readers._free.put(reader)
    assert store.get(Account, "", "a").name == "a"


def test_a_connection_that_failed_is_not_lent_again(tmp_path: Path) -> None:
    opened: list[sqlite3.Connection] = []

    def connect() -> sqlite3.Connection:
        opened.append(sqlite3.connect(tmp_path / "some.db", check_same_thread=False))
        return opened[-1]

    readers = Readers(connect, 1)
    for _ in range(3 * READERS):
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            readers.ask("SELECT * FROM absent")
    assert readers.ask("SELECT 1") == [(1,)]
    assert len(opened) == 3 * READERS + 1
    for connection in opened[:-1]:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
    readers.close()


def test_a_store_that_is_closed_has_no_descriptor_open(tmp_path: Path) -> None:
    before = descriptors()
    store = SqliteStore(tmp_path / "epic.db")
    burst(lambda: store.revision)
    store.close()
    assert descriptors() == before
