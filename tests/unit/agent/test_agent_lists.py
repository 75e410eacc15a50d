# SPDX-License-Identifier: Apache-2.0
"""The lists of tunnels of a workload node: kept, given back, and when something may be removed for them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from agent_samples import KEY

from epic.agent.runtime import store
from epic.agent.workload import storage
from epic.agent.workload.lists import TunnelLists

SHOP, BANK = "https://epic/shop/lab", "https://epic/bank/lab"


def document(id_: int) -> dict[str, Any]:
    return {
        "id": id_,
        "gateway": "shop.wéb",
        "service": 3,
        "inside-address": f"100.64.0.{id_}",
        "inside-address6": f"fd65:7069:6300::6440:{id_:x}",
        "epic-address": "2001:db8::1",
        "keys": [{"epoch": 1, "secret": KEY.hex()}],
        "signing-epoch": 1,
    }


def listed(*ids: int, revision: int = 5) -> storage.Listed:
    return storage.read({"tunnels": [document(id_) for id_ in ids], "revision": revision})


def opened(directory: Path) -> TunnelLists:
    lists = TunnelLists(directory)
    lists.restore()
    return lists


def test_lists_come_back_after_a_restart_with_their_revision(tmp_path: Path) -> None:
    lists = opened(tmp_path)
    lists.expect([SHOP, BANK], complete=True)
    lists.take(SHOP, listed(1, 2))
    lists.take(SHOP, listed(2, 3, revision=6))
    lists.take(BANK, listed())
    lists.close()
    again = opened(tmp_path)
    assert again.tunnels.keys() == {2, 3}
    assert again.revisions() == {SHOP: 6, BANK: 5}
    again.expect([SHOP, BANK], complete=True)
    assert again.complete
    assert (tmp_path / store.FILE).stat().st_mode & 0o777 == 0o600


def test_the_whole_is_known_when_the_manifests_and_every_list_are(tmp_path: Path) -> None:
    lists = opened(tmp_path)
    assert not lists.complete
    lists.expect([SHOP, BANK], complete=True)
    lists.take(SHOP, listed(1))
    assert not lists.complete
    lists.take(BANK, listed(2))
    assert lists.complete


def test_lists_of_accounts_that_the_manifests_name_no_more_go(tmp_path: Path) -> None:
    lists = opened(tmp_path)
    lists.expect([SHOP, BANK], complete=True)
    lists.take(SHOP, listed(1))
    lists.take(BANK, listed(2))
    lists.expect([BANK], complete=True)
    assert (lists.tunnels.keys(), lists.complete) == ({2}, True)
    lists.close()
    assert opened(tmp_path).tunnels.keys() == {2}


def test_a_manifest_that_cannot_be_read_takes_no_list_away(tmp_path: Path) -> None:
    lists = opened(tmp_path)
    lists.expect([SHOP], complete=True)
    lists.take(SHOP, listed(1))
    lists.close()
    again = opened(tmp_path)
    again.expect([], complete=False)
    assert (again.tunnels.keys(), again.complete) == ({1}, False)


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_damaged_state_counts_as_none_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / store.FILE).write_bytes(content)
    lists = opened(tmp_path)
    assert not lists.tunnels
    lists.expect([SHOP], complete=True)
    assert not lists.complete
    lists.take(SHOP, listed(1))
    lists.close()
    assert opened(tmp_path).tunnels.keys() == {1}


def test_a_full_disk_delays_what_is_written_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    lists = opened(tmp_path)
    lists.expect([SHOP], complete=True)
    with monkeypatch.context() as patched:
        patched.setattr(store, "write", full)
        assert lists.take(SHOP, listed(1))
        lists.close()
    assert lists.tunnels.keys() == {1}
    assert not lists.take(SHOP, listed(1))
    lists.close()
    assert opened(tmp_path).tunnels.keys() == {1}


def test_a_tunnel_that_is_not_as_expected_leaves_the_list_as_it_was() -> None:
    with pytest.raises(ValueError, match="revision"):
        storage.read({"tunnels": [], "revision": "x"})
    with pytest.raises(ValueError, match="tunnel 1 is not as expected"):
        storage.read({"tunnels": [document(1) | {"service": "x"}]})
