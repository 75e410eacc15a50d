# SPDX-License-Identifier: Apache-2.0
"""`epic-control check`: whether a control plane could be run by a configuration, before it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from etcd_server import EtcdServer
from store_sites import EtcdSite, SqliteSite
from test_control_settings import GOOD

from epic.control.check import check
from epic.errors import Invalid, Unavailable
from epic.store.etcd.settings import EtcdSettings
from epic.store.location import StoreLocation

Write = Callable[[str, StoreLocation], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A configuration of that name, with the store there."""

    def write(name: str, store: StoreLocation) -> Path:
        path = tmp_path / name
        sqlite = "{sqlite: /var/lib/epic/control/store.db}"
        path.write_text(GOOD.replace(sqlite, store.model_dump_json(exclude_none=True)))
        return path

    return write


def in_etcd(settings: EtcdSettings, **changes: object) -> StoreLocation:
    return StoreLocation(etcd=settings.model_copy(update=changes))


def test_a_host_that_begins_may_have_an_empty_store(write: Write, etcd: EtcdServer, tmp_path: Path) -> None:
    for store in (StoreLocation(sqlite=tmp_path / "store.db"), in_etcd(etcd.settings("/begins/"))):
        check(write("new", store), None, tmp_path / "control.yaml")
    assert not (tmp_path / "store.db").exists()


def test_nothing_is_written_to_an_etcd_that_is_tried(write: Write, etcd: EtcdServer) -> None:
    settings = etcd.settings("/untouched/")
    new = write("new", in_etcd(settings))
    check(new, None, write("old", StoreLocation(etcd=settings)))
    with pytest.raises(Invalid, match="is empty"):
        check(new, None, write("old", StoreLocation(sqlite=Path("/x.db"))))


def test_another_store_than_the_one_in_use_is_refused_while_it_is_empty(
    write: Write, etcd: EtcdServer, tmp_path: Path
) -> None:
    sqlite, other = SqliteSite(tmp_path / "store.db"), EtcdSite(etcd.settings("/moves/"))
    old, new = write("old", sqlite.location), write("new", other.location)
    with pytest.raises(Invalid, match=f"is empty, and the objects are in {sqlite.path}. Stop epic-control"):
        check(new, None, old)
    with pytest.raises(Invalid, match="is empty, and the objects are in etcd at 127"):
        check(old, None, new)
    asyncio.run(_make(other))
    check(new, None, old)


async def _make(site: EtcdSite) -> None:
    await site.open()
    await site.close_all()


def test_another_member_is_the_same_store(write: Write, etcd: EtcdServer) -> None:
    settings = etcd.settings("/members/")
    one = in_etcd(settings, endpoints=("127.0.0.1:1", *settings.endpoints))
    check(write("new", in_etcd(settings)), None, write("old", one))
    elsewhere = in_etcd(settings, endpoints=("127.0.0.1:1",))
    with pytest.raises(Invalid, match="is empty, and the objects are in etcd at 127"):
        check(write("new", in_etcd(settings)), None, write("old", elsewhere))


def test_a_key_that_everybody_may_read_is_refused(write: Write, etcd: EtcdServer, tmp_path: Path) -> None:
    settings = etcd.settings("/keys/")
    assert settings.key is not None
    key = tmp_path / "key"
    key.write_bytes(settings.key.read_bytes())
    key.chmod(0o644)
    with pytest.raises(Invalid, match=f"{key}: everybody may use this key; chmod o= {key}"):
        check(write("new", in_etcd(settings, key=key)), None, None)


def test_a_file_that_is_missing_is_named(write: Write, etcd: EtcdServer, tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    with pytest.raises(Invalid, match=f"{missing}: No such file or directory"):
        check(write("new", in_etcd(etcd.settings(), authority=missing)), None, None)


def test_an_etcd_that_nobody_answers_for_is_named(write: Write, etcd: EtcdServer) -> None:
    nowhere = in_etcd(etcd.settings(), endpoints=("127.0.0.1:1",))
    with pytest.raises(Unavailable, match=r"etcd at 127\.0\.0\.1:1: failed to connect"):
        check(write("new", nowhere), None, None)


def test_a_user_who_is_not_there_is_named(write: Write, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="there is no user nobody-here"):
        check(write("new", StoreLocation(sqlite=tmp_path / "store.db")), "nobody-here", None)
