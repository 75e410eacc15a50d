# SPDX-License-Identifier: Apache-2.0
"""What the embedded store does beyond the suite: full disks, broken files, migrations, other processes."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest
from store_sites import SCHEMA, SqliteSite

from epic.errors import Damaged, StorageFull, Unavailable
from epic.store.embedded import database, writer
from epic.store.embedded.engine import SqliteEngine
from epic.store.embedded.readers import READERS
from epic.store.object_store import ObjectStore
from epic.store.objects import Key, Put

KEYS = [Key("GWRoute", "shop", f"r{i}") for i in range(200)]
A = KEYS[0]


@pytest.fixture
async def store(sqlite_site: SqliteSite) -> ObjectStore:
    return await sqlite_site.open()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_the_file_and_what_belongs_to_it_are_readable_by_their_owner_only(
    sqlite_site: SqliteSite, store: ObjectStore
) -> None:
    await store.commit(Put(A, b"1", 0))
    files = list(sqlite_site.path.parent.glob("objects.db*"))
    assert len(files) >= 4
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file


async def test_however_many_ask_the_number_of_descriptors_is_bounded(store: ObjectStore) -> None:
    await store.commit(*(Put(key, b"1", 0) for key in KEYS[:100]))
    before = descriptors()
    for _ in range(4):
        await asyncio.gather(*(store.get(key) for key in KEYS[:100] for _ in range(10)))
    # A reader has the database and its log open.
    assert descriptors() <= before + 2 * READERS


async def test_commits_that_wait_together_need_one_fsync(
    store: ObjectStore, sqlite_site: SqliteSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    write_group = writer.Writer._write_group

    def counted(self: writer.Writer, group: list[object]) -> None:
        groups.append(len(group))
        write_group(self, group)  # type: ignore[arg-type]

    monkeypatch.setattr(writer.Writer, "_write_group", counted)
    revisions = await asyncio.gather(*(store.commit(Put(key, b"1", 0)) for key in KEYS))
    assert len(set(revisions)) == len(KEYS)
    assert sum(groups) == len(KEYS)
    assert len(groups) < len(KEYS) / 4


async def test_on_a_full_disk_writes_say_so_nothing_is_lost_and_it_recovers_by_itself(
    store: ObjectStore, sqlite_site: SqliteSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = await store.commit(Put(A, b"before", 0))
    with monkeypatch.context() as patch:
        limit_pages(patch, 40)
        outcomes = await asyncio.gather(
            *(store.commit(Put(key, b"x" * 50_000, 0)) for key in KEYS[1:]), return_exceptions=True
        )
        full = [outcome for outcome in outcomes if isinstance(outcome, StorageFull)]
        assert full
        assert "the disk is full; nothing of this write was stored" in str(full[0])
        assert (await store.get(A)).body == b"before"
        with pytest.raises(StorageFull):
            await store.commit(Put(A, b"x" * 500_000, revision))
    stored = {key for key, outcome in zip(KEYS[1:], outcomes, strict=True) if isinstance(outcome, int)}
    assert {found.key for found in (await store.list("GWRoute")).items} == {A, *stored}
    await store.commit(Put(A, b"x" * 500_000, revision))
    for key in KEYS[1:]:
        if key not in stored:
            await store.commit(Put(key, b"1", 0))


def limit_pages(patch: pytest.MonkeyPatch, pages: int) -> None:
    """The file may not grow over so many pages."""
    connected = writer.Writer._connected

    def limited(self: writer.Writer) -> sqlite3.Connection:
        connection = connected(self)
        connection.execute(f"PRAGMA max_page_count={pages}")
        return connection

    patch.setattr(writer.Writer, "_connected", limited)


def can_mount() -> bool:
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="mounts a small disk: needs root")
def test_a_real_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    script = Path(__file__).with_name("full_disk.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = ["unshare", "--mount", sys.executable, str(script), str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


async def test_a_broken_file_is_refused_by_name_and_left_as_it_is(sqlite_site: SqliteSite) -> None:
    store = await sqlite_site.open()
    for key in KEYS:
        await store.commit(Put(key, b"x" * 5000, 0))
    await sqlite_site.close_all()
    broken = bytearray(sqlite_site.path.read_bytes())
    broken[40_000:60_000] = b"\xff" * 20_000
    sqlite_site.path.write_bytes(broken)
    with pytest.raises(Damaged, match=r"objects\.db: .*restore a backup"):
        await sqlite_site.open()
    assert sqlite_site.path.read_bytes() == broken


@pytest.mark.parametrize("content", [b"no database" * 1000, b"\0" * 8192])
async def test_a_file_of_something_else_is_refused(sqlite_site: SqliteSite, content: bytes) -> None:
    sqlite_site.path.write_bytes(content)
    with pytest.raises(Damaged):
        await sqlite_site.open()
    assert sqlite_site.path.read_bytes() == content


async def test_a_database_of_something_else_is_refused(sqlite_site: SqliteSite) -> None:
    with sqlite3.connect(sqlite_site.path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    with pytest.raises(Damaged, match="a database of something else; it is left as it is"):
        await sqlite_site.open()


async def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="nowhere"):
        await SqliteEngine.open(tmp_path / "nowhere" / "objects.db")


async def test_an_older_layout_is_migrated_all_or_nothing(
    sqlite_site: SqliteSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await sqlite_site.open()).commit(Put(A, b"1", 0))
    await sqlite_site.close_all()
    next_layout = ("ALTER TABLE counters RENAME COLUMN value TO number", "CREATE TABLE more (a)")
    fails = (*next_layout, "CREATE TABLE more (a)")
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, fails))
        with pytest.raises(Unavailable, match="already exists"):
            await sqlite_site.open()
    assert (await (await sqlite_site.open()).get(A)).body == b"1"
    await sqlite_site.close_all()
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, next_layout))
        await sqlite_site.open()
        await sqlite_site.close_all()
    with pytest.raises(Damaged, match="its layout 2 is of a newer EPIC; this one reads up to 1"):
        await sqlite_site.open()


async def test_compaction_makes_room_for_what_comes_next(sqlite_site: SqliteSite, store: ObjectStore) -> None:
    async def rewrite(revision: int) -> int:
        for _ in range(100):
            revision = await store.commit(Put(A, b"x" * 10_000, revision))
        await store.compact(revision)
        return revision

    revision = await rewrite(0)
    size = await rewritten_size(sqlite_site)
    for _ in range(3):
        revision = await rewrite(revision)
    assert await rewritten_size(sqlite_site) <= size * 1.1


async def rewritten_size(site: SqliteSite) -> int:
    connection = sqlite3.connect(site.path)
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.close()
    return int(pages)


OTHER_PROCESS = """
import asyncio, sys
from pathlib import Path
from store_sites import SqliteSite
from epic.store.objects import Key, Put
async def main():
    store = await SqliteSite(Path(sys.argv[1])).open()
    await store.commit(Put(Key("Node", "", "other"), b"1", 0))
    if sys.argv[2] == "hold":
        await store.acquire("runs", "other", 5)
        print("held", flush=True)
        await asyncio.sleep(60)
    await store.close()
asyncio.run(main())
"""


def other_process(site: SqliteSite, what: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", OTHER_PROCESS, str(site.path), what]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE)


async def test_a_commit_of_another_process_rings_here(
    sqlite_site: SqliteSite, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epic.store.embedded.engine._LOOK_SECONDS", 300.0)
    async with aclosing(store.watch(None, None, 0)) as batches:
        waiting = asyncio.create_task(anext(batches))
        process = other_process(sqlite_site, "commit")
        async with asyncio.timeout(60):
            assert [event.key.name for event in (await waiting).events] == ["other"]
        assert await asyncio.to_thread(process.wait) == 0


async def test_a_process_that_was_killed_leaves_no_bell_and_no_lease(
    sqlite_site: SqliteSite, store: ObjectStore
) -> None:
    process = other_process(sqlite_site, "hold")
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == "held\n"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await store.acquire("runs", "here", 5)
    process.kill()
    await asyncio.to_thread(process.wait)
    lease = await store.acquire("runs", "here", 5)
    await store.commit(Put(A, b"1", 0), lease.fence)
    bells = sqlite_site.path.with_name("objects.db.bells")
    assert len(list(bells.iterdir())) == 1
    await lease.release()


async def test_a_store_that_is_closed_says_so(sqlite_site: SqliteSite) -> None:
    store = ObjectStore(await SqliteEngine.open(sqlite_site.path), SCHEMA)
    waiting = [asyncio.create_task(store.commit(Put(key, b"1", 0))) for key in KEYS[:10]]
    await asyncio.sleep(0)
    await store.close()
    assert len(set(await asyncio.gather(*waiting))) == 10
    with pytest.raises(Unavailable, match="closed"):
        await store.commit(Put(KEYS[20], b"1", 0))
