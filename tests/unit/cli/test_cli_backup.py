# SPDX-License-Identifier: Apache-2.0
"""`epicctl backup` and `epicctl restore`, tried by losing the original."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from etcd_server import EtcdServer
from store_sites import EtcdSite, SqliteSite, StoreSite
from typer.testing import CliRunner

from epic.cli.commands import backup as commands
from epic.cli.main import app
from epic.errors import Damaged, Invalid
from epic.store.objects import Key, Put

A = Key("Node", "", "epic1")


async def make(site: StoreSite) -> None:
    await (await site.open()).commit(Put(A, b"1", 0))
    await site.close_all()


async def read(site: StoreSite) -> bytes:
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


def test_without_an_option_it_is_the_store_of_the_hosts_control_plane(
    site: SqliteSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control, file = tmp_path / "control.yaml", str(tmp_path / "backup")
    monkeypatch.setattr(commands, "_CONTROL", control)
    with pytest.raises(Invalid, match=r"control\.yaml: No such file or directory; say --database or --etcd"):
        epicctl("backup", file)
    control.write_text("rest: {}")
    with pytest.raises(Invalid, match=r"control\.yaml: expected the key store"):
        epicctl("backup", file)
    control.write_text(f"store: {{sqlite: {site.path}}}")
    asyncio.run(make(site))
    assert "1 objects as of revision 1" in epicctl("backup", file)
    site.path.write_bytes(b"broken" * 1000)
    assert f"Replace everything in {site.path} by 1 objects of" in epicctl("restore", file, answer="y\n")
    assert asyncio.run(read(site)) == b"1"


def test_an_etcd_is_backed_up_into_a_file_of_its_owner_and_brought_back(
    etcd: EtcdServer, tmp_path: Path
) -> None:
    site, file = EtcdSite(etcd.settings("/cli/")), tmp_path / "backup"
    settings = tmp_path / "etcd.yaml"
    settings.write_text(etcd.settings("/cli/").model_dump_json())
    asyncio.run(make(site))
    epicctl("backup", str(file), "--etcd", str(settings))
    assert file.stat().st_mode & 0o077 == 0
    asyncio.run(site.destroy())
    assert "1 objects restored" in epicctl("restore", str(file), "--yes", "--etcd", str(settings))
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
        epicctl("backup", file, "--database", "/x", "--etcd", "/y")
    with pytest.raises(Invalid, match="no such file"):
        epicctl("backup", file, "--database", str(tmp_path / "nowhere.db"))
    (tmp_path / "etcd.yaml").write_text("endpoints: ['192.0.2.1:2379']\n")
    with pytest.raises(Invalid, match="authority: expected"):
        epicctl("backup", file, "--etcd", str(tmp_path / "etcd.yaml"))
    (tmp_path / "other").write_text("x")
    with pytest.raises(Damaged, match="no backup"):
        epicctl("restore", str(tmp_path / "other"), "--yes", "--database", str(tmp_path / "objects.db"))
