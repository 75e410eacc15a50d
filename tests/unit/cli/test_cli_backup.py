# SPDX-License-Identifier: Apache-2.0
"""`epicctl backup` and `epicctl restore`, tried by losing the original."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from store_sites import SqliteSite
from typer.testing import CliRunner

from epic.cli.main import app
from epic.errors import Damaged, Invalid
from epic.store.objects import Key, Put

A = Key("Node", "", "epic1")


async def make(site: SqliteSite) -> None:
    await (await site.open()).commit(Put(A, b"1", 0))
    await site.close_all()


async def read(site: SqliteSite) -> bytes:
    stored = await (await site.open()).get(A)
    await site.close_all()
    return stored.body


def epicctl(*arguments: str, answer: str = "") -> str:
    result = CliRunner().invoke(app, arguments, input=answer)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@pytest.fixture
def site(tmp_path: Path) -> SqliteSite:
    return SqliteSite(tmp_path / "objects.db")


def test_a_backup_brings_back_what_was_destroyed(site: SqliteSite, tmp_path: Path) -> None:
    asyncio.run(make(site))
    file = str(tmp_path / "backup")
    assert "1 objects as of revision 1" in epicctl("backup", file, "--database", str(site.path))
    site.path.write_bytes(b"broken" * 1000)
    output = epicctl("restore", file, "--database", str(site.path), answer="y\n")
    assert "1 objects of 20" in output
    assert "1 objects restored" in output
    assert asyncio.run(read(site)) == b"1"


def test_a_restore_that_is_not_confirmed_changes_nothing(site: SqliteSite, tmp_path: Path) -> None:
    asyncio.run(make(site))
    file = str(tmp_path / "backup")
    epicctl("backup", file, "--database", str(site.path))
    before = site.path.read_bytes()
    assert "Aborted" in epicctl("restore", file, "--database", str(site.path), answer="n\n")
    assert site.path.read_bytes() == before


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    file = str(tmp_path / "backup")
    with pytest.raises(Invalid, match="either --database or --etcd"):
        epicctl("backup", file)
    with pytest.raises(Invalid, match="no such file"):
        epicctl("backup", file, "--database", str(tmp_path / "nowhere.db"))
    (tmp_path / "etcd.yaml").write_text("endpoints: ['192.0.2.1:2379']\n")
    with pytest.raises(Invalid, match="authority: expected"):
        epicctl("backup", file, "--etcd", str(tmp_path / "etcd.yaml"))
    (tmp_path / "other").write_text("x")
    with pytest.raises(Damaged, match="no backup"):
        epicctl("restore", str(tmp_path / "other"), "--yes", "--database", str(tmp_path / "objects.db"))
