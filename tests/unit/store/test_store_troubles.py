# SPDX-License-Identifier: Apache-2.0
"""A host that takes no writes for a while: said once, reads go on, and it is over by itself."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from disk_troubles import TROUBLES, busy, full

from epic.errors import Damaged, NotWritable, StorageFull, Unavailable
from epic.model.base import Metadata
from epic.model.resources import Account, AccountSpec
from epic.store import sqlite
from epic.store.health import Health
from epic.store.sqlite import SqliteStore


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteStore]:
    monkeypatch.setattr(sqlite, "_LOCK_SECONDS", 0.05)
    monkeypatch.setattr(sqlite, "_IN_TROUBLE_SECONDS", 0.01)
    store = SqliteStore(tmp_path / "epic.db")
    create(store, "before")
    yield store
    store.close()


def account(name: str, limit: int = 20) -> Account:
    # Large enough that the file has to grow.
    labels = {f"label{i}": "x" * 60 for i in range(100)}
    return Account(metadata=Metadata(name=name, labels=labels), spec=AccountSpec(proxy_limit=limit))


def create(store: SqliteStore, *names: str) -> None:
    with store.transaction() as transaction:
        for name in names:
            transaction.create(account(name))


def names(store: SqliteStore) -> list[str]:
    return [found.name for found in store.list(Account)]


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_writes_are_refused_with_one_text_reads_go_on_and_it_ends_by_itself(
    store: SqliteStore, trouble: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    revision = store.revision
    with trouble(store):  # type: ignore[operator]
        for number in range(5):
            with pytest.raises(NotWritable) as refused:
                create(store, f"a{number}", f"b{number}")
            assert str(refused.value) == "the control plane cannot write now; repeat the request later"
            assert names(store) == ["before"]
        assert store.revision == revision
    create(store, "after")
    assert names(store) == ["after", "before"]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{store._path} cannot be written: ")
    assert record.exc_info is None


def test_what_happens_in_the_middle_of_a_write_leaves_nothing_of_it(store: SqliteStore) -> None:
    with pytest.raises(StorageFull), store.transaction() as transaction:
        transaction.create(Account(metadata=Metadata(name="small")))
        with full(store):
            for number in range(50):
                transaction.create(account(f"large{number}"))
    assert names(store) == ["before"]
    create(store, "after")
    assert names(SqliteStore(store._path)) == ["after", "before"]


def test_a_fault_of_ours_is_none_of_the_host(store: SqliteStore) -> None:
    with pytest.raises(Exception, match="no such table") as raised, store.transaction() as transaction:
        transaction._sql.execute("SELECT * FROM nowhere")
    assert not isinstance(raised.value, Unavailable)
    create(store, "after")


def test_who_waits_in_trouble_does_not_wait_one_after_the_other(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    acquire = store._lock

    class Lock:
        def acquire(self, timeout: float) -> bool:
            waited.append(timeout)
            return acquire.acquire(timeout=timeout)

        def release(self) -> None:
            acquire.release()

    monkeypatch.setattr(store, "_lock", Lock())
    with busy(store):
        for name in ("a", "b"):
            with pytest.raises(NotWritable):
                create(store, name)
    create(store, "c")
    create(store, "d")
    long, short = sqlite._LOCK_SECONDS, sqlite._IN_TROUBLE_SECONDS
    assert waited == [long, short, short, long]


def test_a_write_that_hangs_lets_others_go_and_does_not_stop_who_reads(store: SqliteStore) -> None:
    begun, end = threading.Event(), threading.Event()

    def hang() -> None:
        with store.transaction():
            begun.set()
            end.wait(10)

    thread = threading.Thread(target=hang)
    thread.start()
    begun.wait(10)
    with pytest.raises(NotWritable, match="cannot write now"):
        create(store, "a")
    assert names(store) == ["before"]
    end.set()
    thread.join()
    create(store, "a")


def test_a_damaged_file_is_said_to_be_that(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    store._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(store._path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    store._path.write_bytes(content)
    store._readers.close()  # a new one has nothing of it in memory
    for _ in range(3):
        with pytest.raises(Damaged, match=r"^what the control plane has stored is damaged; "):
            store.list(Account)
    assert len(caplog.records) == 1


def test_a_database_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none" / "epic.db"
    with pytest.raises(Unavailable, match=f"^{path} cannot be opened: "):
        SqliteStore(path)


def test_a_disk_that_takes_some_writes_and_refuses_others_is_one_trouble(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    time = 0.0
    health = Health(tmp_path / "epic.db", "written", lambda: time)
    for _ in range(20):
        health.failed(StorageFull("", "the disk is full"))
        time += 1
        health.succeeded()
        assert not health.failing
    time += 10
    health.succeeded()
    health.succeeded()
    what = f"{tmp_path}/epic.db cannot be written"
    assert [record.getMessage() for record in caplog.records] == [
        f"{what}: the disk is full; it is tried again with each request",
        f"over: {what}",
    ]


def can_mount() -> bool:
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="mounts a small disk: needs root")
def test_the_control_plane_on_a_real_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    script = Path(__file__).with_name("full_control_disk.py")
    model = Path(__file__).parents[2] / "model"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(model)])}
    command = ["unshare", "--mount", sys.executable, str(script), str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
