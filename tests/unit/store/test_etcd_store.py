# SPDX-License-Identifier: Apache-2.0
"""What the store in etcd does beyond the suite: members that go and come, leases, full databases, TLS."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from etcd_server import EtcdServer, make_certificates, require_etcd
from pydantic import ValidationError
from store_sites import SCHEMA, EtcdSite

from epic.errors import Damaged, OutcomeUnknown, StorageFull, Unavailable
from epic.store.etcd.engine import EtcdEngine
from epic.store.etcd.leases import EtcdLease
from epic.store.etcd.settings import EtcdSettings
from epic.store.location import StoreLocation
from epic.store.object_store import ObjectStore
from epic.store.objects import CommitConflict, Key, Put

A = Key("GWRoute", "shop", "a")
B = Key("GWRoute", "shop", "b")


@pytest.fixture
def own_etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    """An etcd that the test may kill."""
    require_etcd()
    server = EtcdServer(tmp_path)
    server.start()
    yield server
    server.stop()


async def open_store(settings: EtcdSettings) -> ObjectStore:
    return ObjectStore(await EtcdEngine.open(settings), SCHEMA)


def impatient(settings: EtcdSettings) -> EtcdSettings:
    return settings.model_copy(update={"timeout_seconds": 2.0})


async def until_it_answers(store: ObjectStore) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await store.revision()
                return
            except Unavailable:
                await asyncio.sleep(0.05)


async def test_an_etcd_that_was_away_is_used_again_by_itself(own_etcd: EtcdServer) -> None:
    store = await open_store(impatient(own_etcd.settings()))
    revision = await store.commit(Put(A, b"1", 0))
    own_etcd.kill()
    with pytest.raises(Unavailable, match=r"etcd at 127\.0\.0\.1"):
        await store.get(A)
    with pytest.raises(Unavailable):
        await store.commit(Put(B, b"1", 0))
    own_etcd.start()
    await until_it_answers(store)
    assert (await store.get(A)).revision == revision
    await store.close()


async def test_of_a_write_that_got_no_answer_the_outcome_is_called_unknown(own_etcd: EtcdServer) -> None:
    store = await open_store(impatient(own_etcd.settings()))
    await store.commit(Put(A, b"1", 0))
    own_etcd.pause()
    with pytest.raises(OutcomeUnknown, match="whether the write was stored is not known"):
        await store.commit(Put(B, b"1", 0))
    own_etcd.resume()
    await until_it_answers(store)
    assert len((await store.list("GWRoute")).items) in (1, 2)
    await store.close()


async def test_another_member_is_asked_when_one_does_not_answer(own_etcd: EtcdServer) -> None:
    settings = own_etcd.settings()
    nobody = settings.model_copy(update={"endpoints": ("127.0.0.1:1", *settings.endpoints)})
    store = await open_store(nobody)
    revision = await store.commit(Put(A, b"1", 0))
    assert (await store.get(A)).revision == revision
    await store.close()


async def test_a_watch_ends_when_etcd_goes_and_goes_on_from_its_last_revision(own_etcd: EtcdServer) -> None:
    store = await open_store(impatient(own_etcd.settings()))
    first = await store.commit(Put(A, b"1", 0))
    async with aclosing(store.watch(None, None, 0)) as batches:
        assert (await anext(batches)).revision == first
        own_etcd.kill()
        with pytest.raises(Unavailable):
            await anext(batches)
    own_etcd.start()
    await until_it_answers(store)
    second = await store.commit(Put(A, b"2", first))
    async with aclosing(store.watch(None, None, first)) as batches:
        assert [event.revision for event in (await anext(batches)).events] == [second]
    await store.close()


async def test_a_watcher_of_what_never_changes_gets_new_revisions(
    etcd_site: EtcdSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epic.store.etcd.watching._PROGRESS_SECONDS", 0.05)
    store = await etcd_site.open()
    start = await store.revision()
    revision = await store.commit(Put(A, b"1", 0))
    async with aclosing(store.watch("Node", None, start)) as batches, asyncio.timeout(60):
        while (batch := await anext(batches)).revision < revision:
            assert batch.events == ()


HOLDER = """
import asyncio, sys
from store_sites import SCHEMA
from epic.store.location import StoreLocation, open_engine
from epic.store.object_store import ObjectStore
async def main():
    store = ObjectStore(await open_engine(StoreLocation.model_validate_json(sys.argv[1])), SCHEMA)
    await store.acquire("runs", "other", 2)
    print("held", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def holder(location: StoreLocation) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLDER, location.model_dump_json()]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE)


async def test_the_lease_of_a_process_that_was_killed_ends(etcd_site: EtcdSite) -> None:
    process = holder(etcd_site.location)
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == "held\n"
    process.kill()
    await asyncio.to_thread(process.wait)
    store = await etcd_site.open()
    async with asyncio.timeout(60):
        lease = await store.acquire("runs", "here", 2)
    await store.commit(Put(A, b"1", 0), lease.fence)
    await lease.release()


async def test_a_lease_is_kept_while_its_holder_lives(
    etcd_site: EtcdSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_once = EtcdLease._keep_once
    kept = asyncio.Semaphore(0)

    async def counted(self: EtcdLease) -> int:
        granted = await keep_once(self)
        kept.release()
        return granted

    monkeypatch.setattr(EtcdLease, "_keep_once", counted)
    store = await etcd_site.open()
    lease = await store.acquire("runs", "here", 3)
    for _ in range(4):  # each is a third of the lease's life
        await kept.acquire()
    await store.commit(Put(A, b"1", 0), lease.fence)
    await lease.release()


async def test_who_cannot_keep_its_lease_knows_that_it_is_lost(own_etcd: EtcdServer) -> None:
    store = await open_store(impatient(own_etcd.settings()))
    lease = await store.acquire("runs", "here", 2)
    own_etcd.kill()
    async with asyncio.timeout(60):
        await lease.wait_lost()
    own_etcd.start()
    await until_it_answers(store)
    async with asyncio.timeout(60):
        second = await (await open_store(own_etcd.settings())).acquire("runs", "there", 2)
    with pytest.raises(CommitConflict):
        await store.commit(Put(A, b"1", 0), lease.fence)
    await second.release()
    await lease.release()
    await store.close()


async def test_a_full_etcd_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    require_etcd()
    server = EtcdServer(tmp_path, f"--quota-backend-bytes={16 * 1024 * 1024}")
    server.start()
    store = await open_store(server.settings())
    keys = [Key("GWRoute", "shop", f"r{i}") for i in range(40)]
    stored = []
    with pytest.raises(StorageFull, match="nothing of this write was stored"):
        for key in keys:
            await store.commit(Put(key, os.urandom(900_000), 0))
            stored.append(key.name)
    assert len(stored) >= 5
    assert sorted(stored) == [found.key.name for found in (await store.list("GWRoute")).items]
    await store.close()
    server.stop()


async def test_a_write_that_etcd_carries_out_and_then_refuses_is_known_to_be_there(tmp_path: Path) -> None:
    """Of some at once more than one passes etcd's first look; the second is when it has been carried out."""
    require_etcd()
    server = EtcdServer(tmp_path, f"--quota-backend-bytes={16 * 1024 * 1024}")
    server.start()
    store = await open_store(server.settings())
    told: dict[str, int] = {}
    refused: list[BaseException] = []
    while not refused:
        keys = [Key("GWRoute", "shop", f"r{len(told) + i}") for i in range(4)]
        written = (store.commit(Put(key, os.urandom(900_000), 0)) for key in keys)
        outcomes = await asyncio.gather(*written, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        told |= {key.name: found for key, found in zip(keys, outcomes, strict=True) if isinstance(found, int)}
    there = {found.key.name: found.revision for found in (await store.list("GWRoute")).items}
    assert {type(outcome) for outcome in refused} == {StorageFull}
    assert told == there
    await store.close()
    server.stop()


async def test_only_who_has_a_certificate_of_the_authority_is_served(
    own_etcd: EtcdServer, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    make_certificates(stranger)
    settings = impatient(own_etcd.settings())
    for wrong in (
        {"certificate": None, "key": None},
        {"certificate": stranger / "client.pem", "key": stranger / "client.key"},
        {"authority": stranger / "authority.pem"},
    ):
        with pytest.raises(Unavailable):
            await EtcdEngine.open(settings.model_copy(update=wrong))
    with pytest.raises(Unavailable, match=r"nowhere\.pem"):
        await EtcdEngine.open(settings.model_copy(update={"authority": tmp_path / "nowhere.pem"}))


async def test_certificates_are_read_anew_when_the_connection_is_made_anew(
    own_etcd: EtcdServer, tmp_path: Path
) -> None:
    settings = impatient(own_etcd.settings())
    store = await open_store(settings)
    await store.commit(Put(A, b"1", 0))
    own_etcd.kill()
    make_certificates(tmp_path)
    own_etcd.start()
    await until_it_answers(store)
    assert (await store.get(A)).body == b"1"
    await store.close()


@pytest.mark.parametrize("value", [b"", b"[]", b'{"layout":2}', b'{"layout":1}'])
async def test_a_store_of_another_layout_is_refused(etcd_site: EtcdSite, value: bytes) -> None:
    await etcd_site.open()
    await etcd_site.write_meta(value)
    with pytest.raises(Damaged, match="etcd: "):
        await etcd_site.open()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"endpoints": []}, "endpoints"),
        ({"endpoints": ["etcd"]}, "endpoints"),
        ({"endpoints": ["192.0.2.1:2379"]}, "the store holds secrets"),
        ({"endpoints": ["127.0.0.1:2379"], "certificate": "a"}, "expected both or none"),
        ({"endpoints": ["127.0.0.1:2379"], "certificate": "a", "key": "b"}, "authority: expected"),
        ({"endpoints": ["127.0.0.1:2379"], "prefix": "epic"}, "prefix"),
        ({"endpoints": ["127.0.0.1:2379"], "cacert": "a"}, "cacert"),
    ],
)
def test_settings_that_are_wrong_or_unsafe_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        EtcdSettings.model_validate(settings)


@pytest.mark.parametrize("location", [{}, {"sqlite": "a", "etcd": {"endpoints": ["localhost:1"]}}])
def test_a_store_is_in_one_place(location: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="either sqlite"):
        StoreLocation.model_validate(location)
