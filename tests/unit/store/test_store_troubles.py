# SPDX-License-Identifier: Apache-2.0
"""A host that takes no writes for a while: said once, reads go on, and it is over by itself."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from disk_troubles import TROUBLES, busy, full
from stores import open_store

from epic.cache import store as cached
from epic.cache.store import CachedStore
from epic.errors import Damaged, NotWritable, StorageFull, Unavailable
from epic.model.base import Metadata
from epic.model.resources import Account, AccountSpec
from epic.store.embedded import database
from epic.store.health import Health


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CachedStore]:
    monkeypatch.setattr(cached, "_LOCK_SECONDS", 0.05)
    monkeypatch.setattr(cached, "_IN_TROUBLE_SECONDS", 0.01)
    monkeypatch.setattr(database, "_LOCK_SECONDS", 0.05)
    store = open_store(tmp_path / "epic.db")
    create(store, "before")
    yield store
    store.close()


def account(name: str, limit: int = 20) -> Account:
    # Large enough that the file has to grow.
    labels = {f"label{i}": "x" * 60 for i in range(100)}
    return Account(metadata=Metadata(name=name, labels=labels), spec=AccountSpec(proxy_limit=limit))


def create(store: CachedStore, *names: str) -> None:
    with store.transaction() as transaction:
        for name in names:
            transaction.create(account(name))


def names(store: CachedStore) -> list[str]:
    return [found.name for found in store.list(Account)]


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_writes_are_refused_with_one_text_reads_go_on_and_it_ends_by_itself(
    store: CachedStore, trouble: object, caplog: pytest.LogCaptureFixture
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
    assert record.getMessage().startswith(f"{store.location.title} cannot be written: ")
    assert record.exc_info is None


def test_a_write_that_does_not_fit_as_a_whole_leaves_nothing_of_it(store: CachedStore) -> None:
    with full(store), pytest.raises(StorageFull), store.transaction() as transaction:
        transaction.create(Account(metadata=Metadata(name="small")))
        for number in range(50):
            transaction.create(account(f"large{number}"))
    assert names(store) == ["before"]
    create(store, "after")
    with closing(open_store(store.location.sqlite)) as again:
        assert names(again) == ["after", "before"]


def test_who_waits_in_trouble_does_not_wait_one_after_the_other(
    store: CachedStore, monkeypatch: pytest.MonkeyPatch
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
    long, short = cached._LOCK_SECONDS, cached._IN_TROUBLE_SECONDS
    assert waited == [long, short, short, long]


def test_a_write_that_hangs_lets_others_go_and_does_not_stop_who_reads(store: CachedStore) -> None:
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


def test_a_damaged_file_is_said_to_be_that(tmp_path: Path) -> None:
    path = tmp_path / "epic.db"
    with closing(open_store(path)) as store:
        create(store, "before")
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(Damaged, match=f"^{path}: "):
        open_store(path)
    assert path.read_bytes() == content


def test_a_database_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none" / "epic.db"
    with pytest.raises(Unavailable, match=f"^{path}.*: No such file or directory"):
        open_store(path)


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
