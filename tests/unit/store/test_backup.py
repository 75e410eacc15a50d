# SPDX-License-Identifier: Apache-2.0
"""A backup is made while the store is used, fits every engine, and brings everything back."""

from __future__ import annotations

import asyncio
import gzip
import sqlite3
import stat
from contextlib import aclosing, closing
from pathlib import Path

import pytest
from store_sites import SCHEMA, SqliteSite, StoreSite

from epic.errors import Compacted, Damaged, Unavailable
from epic.store.backup import check_backup, write_backup
from epic.store.engine import Scan, Span
from epic.store.location import restore_backup
from epic.store.object_store import ObjectStore
from epic.store.objects import CommitConflict, Key, Put, Unchanged
from epic.store.schema import Schema, StoredKind

KEYS = [Key("GWRoute", f"account{i % 7}", f"route{i}") for i in range(1200)]


async def filled(store: ObjectStore) -> int:
    for first in range(0, len(KEYS), 100):
        puts = [Put(key, key.path.encode(), 0, {"n": key.name}) for key in KEYS[first : first + 100]]
        revision = await store.commit(*puts)
    return revision


async def contents(store: ObjectStore) -> dict[Key, tuple[bytes, dict[str, str]]]:
    page = await store.list("GWRoute")
    return {stored.key: (stored.body, dict(stored.labels)) for stored in page.items}


async def test_after_the_original_is_lost_everything_is_there_again(site: StoreSite, tmp_path: Path) -> None:
    store, engine = await site.open(), await site.open_engine()
    await filled(store)
    before = await contents(store)
    file = tmp_path / "backup"
    summary = await write_backup(engine, file)
    assert (summary.objects, summary) == (len(KEYS), check_backup(file))
    await store.commit(Put(Key("GWRoute", "a", "later"), b"1", 0))
    await site.destroy()

    await restore_backup(site.location, file)
    assert await contents(await site.open()) == before


async def test_a_backup_shows_one_revision_whatever_is_written_meanwhile(
    site: StoreSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, engine = await site.open(), await site.open_engine()
    await filled(store)
    written = 0

    async def write_both() -> None:
        nonlocal written
        found = await asyncio.gather(*(store.get(key) for key in (KEYS[0], KEYS[-1])))
        await store.commit(*(Put(stored.key, b"%d" % written, stored.revision) for stored in found))
        written += 1

    scan = engine.scan

    async def scan_after_a_write(span: Span, limit: int, revision: int | None) -> Scan:
        await write_both()
        return await scan(span, limit, revision)

    await write_both()
    monkeypatch.setattr(engine, "scan", scan_after_a_write)
    await write_backup(engine, tmp_path / "backup")
    assert written > 3
    await site.destroy()
    await restore_backup(site.location, tmp_path / "backup")
    restored = await contents(await site.open())
    assert len(restored) == len(KEYS)
    assert restored[KEYS[0]][0] == restored[KEYS[-1]][0] == b"0"


async def test_after_a_restore_no_revision_is_given_twice(site: StoreSite, tmp_path: Path) -> None:
    store, engine = await site.open(), await site.open_engine()
    old = await store.commit(Put(KEYS[0], b"old", 0))
    await write_backup(engine, tmp_path / "backup")
    newer = await store.commit(Put(KEYS[0], b"new", old))
    await site.close_all()
    await restore_backup(site.location, tmp_path / "backup")

    again = await site.open()
    restored = await again.get(KEYS[0])
    assert restored.body == b"old"
    assert restored.revision > newer
    for known in (old, newer):
        with pytest.raises(CommitConflict):
            await again.commit(Unchanged(KEYS[0], known))
        async with aclosing(again.watch(None, None, known)) as batches:
            with pytest.raises(Compacted):
                await anext(batches)
    assert await again.commit(Put(KEYS[0], b"newest", restored.revision)) > restored.revision


async def test_what_cannot_be_read_is_kept_as_it_is(site: StoreSite, tmp_path: Path) -> None:
    newer = Schema([StoredKind("GWRoute", form=9), StoredKind("GWFuture")])
    store, engine = await site.open(newer), await site.open_engine()
    await store.commit(Put(KEYS[0], b"1", 0), Put(Key("GWFuture", "a", "b"), b"2", 0))
    await site.alter(Key("GWFuture", "a", "b"), lambda value: value[:-1] + b"x")
    await write_backup(engine, tmp_path / "backup")
    await site.destroy()
    await restore_backup(site.location, tmp_path / "backup")
    assert (await (await site.open(newer)).get(KEYS[0])).body == b"1"
    with pytest.raises(Damaged, match="checksum"):
        await (await site.open(newer)).get(Key("GWFuture", "a", "b"))
    with pytest.raises(Damaged, match="newer EPIC"):
        await (await site.open(SCHEMA)).get(KEYS[0])


async def test_leases_are_not_in_a_backup(site: StoreSite, tmp_path: Path) -> None:
    store, engine = await site.open(), await site.open_engine()
    lease = await store.acquire("runs", "host-1", 5)
    assert (await write_backup(engine, tmp_path / "backup")).objects == 0
    await lease.release()


async def test_a_backup_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    site = SqliteSite(tmp_path / "objects.db")
    await write_backup(await site.open_engine(), tmp_path / "backup")
    assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o600
    assert not (tmp_path / ".backup.new").exists()
    await site.close_all()


async def test_a_damaged_backup_changes_nothing(site: StoreSite, tmp_path: Path) -> None:
    store, engine = await site.open(), await site.open_engine()
    await filled(store)
    file = tmp_path / "backup"
    await write_backup(engine, file)
    whole = file.read_bytes()
    lines = gzip.decompress(whole).splitlines(keepends=True)
    before = await contents(store)
    await site.close_all()
    for damaged in (
        b"",
        b"something else",
        whole[: len(whole) // 2],
        whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:],
        gzip.compress(b"[1]\n"),
        gzip.compress(b"{}\n"),
        gzip.compress(b"".join(lines[:-1])),
        gzip.compress(b"".join([*lines[:5], *lines[6:]])),
        gzip.compress(b"".join([*lines, lines[3]])),
    ):
        file.write_bytes(damaged)
        with pytest.raises(Damaged, match="backup"):
            await restore_backup(site.location, file)
    assert await contents(await site.open()) == before


async def test_a_store_in_use_is_not_replaced(tmp_path: Path) -> None:
    site = SqliteSite(tmp_path / "objects.db")
    engine = await site.open_engine()
    await write_backup(engine, tmp_path / "backup")
    with pytest.raises(Unavailable, match="stop EPIC's control plane first"):
        await restore_backup(site.location, tmp_path / "backup")
    await site.close_all()
    await restore_backup(site.location, tmp_path / "backup")


async def test_a_database_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    site = SqliteSite(tmp_path / "objects.db")
    await write_backup(await site.open_engine(), tmp_path / "backup")
    await site.close_all()
    foreign = SqliteSite(tmp_path / "epic.db")
    with closing(sqlite3.connect(tmp_path / "epic.db")) as connection:
        connection.execute("CREATE TABLE objects (name TEXT)")
    before = (tmp_path / "epic.db").read_bytes()
    with pytest.raises(Damaged, match="a database of something else"):
        await restore_backup(foreign.location, tmp_path / "backup")
    assert (tmp_path / "epic.db").read_bytes() == before


async def test_what_a_restore_replaced_is_kept(tmp_path: Path) -> None:
    site = SqliteSite(tmp_path / "objects.db")
    await write_backup(await site.open_engine(), tmp_path / "backup")
    await (await site.open()).commit(Put(KEYS[0], b"1", 0))
    await site.close_all()
    await restore_backup(site.location, tmp_path / "backup")
    replaced = SqliteSite(tmp_path / "objects.db.replaced")
    assert (await (await replaced.open()).get(KEYS[0])).body == b"1"
    await replaced.close_all()


async def test_who_had_the_store_open_in_another_place_writes_nothing_after_a_restore(
    etcd_site: StoreSite, tmp_path: Path
) -> None:
    engine, stale = await etcd_site.open_engine(), await etcd_site.open()
    await stale.commit(Put(KEYS[0], b"1", 0))
    await write_backup(engine, tmp_path / "backup")
    await restore_backup(etcd_site.location, tmp_path / "backup")
    with pytest.raises(Unavailable, match="start EPIC's control plane anew"):
        await stale.commit(Put(KEYS[1], b"1", 0))


async def test_a_restore_that_was_cut_off_is_noticed_and_can_be_repeated(
    etcd_site: StoreSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await etcd_site.open()
    await filled(store)
    before = await contents(store)
    await write_backup(await etcd_site.open_engine(), tmp_path / "backup")

    def broken(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr("epic.store.etcd.engine._grouped", broken)
        with pytest.raises(RuntimeError):
            await restore_backup(etcd_site.location, tmp_path / "backup")
    with pytest.raises(Damaged, match="restore the backup again"):
        await etcd_site.open()
    await restore_backup(etcd_site.location, tmp_path / "backup")
    assert await contents(await etcd_site.open()) == before
