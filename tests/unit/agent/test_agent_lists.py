# SPDX-License-Identifier: Apache-2.0
"""The lists of tunnels of a workload node: kept, given back, and when something may be removed for them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from agent_samples import KEY

from epic.agent.runtime import store
from epic.agent.workload import plan
from epic.agent.workload.lists import TunnelLists
from epic.agent.workload.storage import Versioned

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


def tunnels(*ids: int, version: str = "v1") -> dict[str, Versioned]:
    return {str(id_): Versioned(version, plan.read(document(id_))) for id_ in ids}


def take(lists: TunnelLists, label: str, *ids: int, removed: Sequence[str] = (), revision: int = 5) -> None:
    """The server lists these, and no more these, and that is all."""
    lists.update(label, tunnels(*ids), removed)
    lists.mark(label, revision)


def opened(directory: Path) -> TunnelLists:
    lists = TunnelLists(directory)
    lists.restore()
    return lists


def test_lists_come_back_after_a_restart_with_their_revision(tmp_path: Path) -> None:
    lists = opened(tmp_path)
    lists.expect([SHOP, BANK], complete=True)
    take(lists, SHOP, 1, 2)
    take(lists, SHOP, 3, removed=["1"], revision=6)
    take(lists, BANK)
    lists.close()
    again = opened(tmp_path)
    assert again.tunnels.keys() == {2, 3}
    assert again.revisions() == {SHOP: 6, BANK: 5}
    assert again.versions(SHOP) == {"2": "v1", "3": "v1"}
    again.expect([SHOP, BANK], complete=True)
    assert again.complete
    assert (tmp_path / store.FILE).stat().st_mode & 0o777 == 0o600


def test_the_whole_is_known_when_the_manifests_and_every_list_are(tmp_path: Path) -> None:
    lists = opened(tmp_path)
    assert not lists.complete
    lists.expect([SHOP, BANK], complete=True)
    take(lists, SHOP, 1)
    assert not lists.complete
    take(lists, BANK, 2)
    assert lists.complete


def test_lists_of_accounts_that_the_manifests_name_no_more_go(tmp_path: Path) -> None:
    lists = opened(tmp_path)
    lists.expect([SHOP, BANK], complete=True)
    take(lists, SHOP, 1)
    take(lists, BANK, 2)
    lists.expect([BANK], complete=True)
    assert (lists.tunnels.keys(), lists.complete) == ({2}, True)
    lists.close()
    assert opened(tmp_path).tunnels.keys() == {2}


def test_a_manifest_that_cannot_be_read_takes_no_list_away(tmp_path: Path) -> None:
    lists = opened(tmp_path)
    lists.expect([SHOP], complete=True)
    take(lists, SHOP, 1)
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
    take(lists, SHOP, 1)
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
        take(lists, SHOP, 1)
        lists.close()
    assert lists.tunnels.keys() == {1}
    lists.close()
    assert opened(tmp_path).tunnels.keys() == {1}


def test_a_list_counts_as_whole_when_its_server_says_so(tmp_path: Path) -> None:
    lists = opened(tmp_path)
    lists.expect([SHOP], complete=True)
    lists.update(SHOP, tunnels(1), [])
    assert (lists.tunnels.keys(), lists.complete, lists.revisions()) == ({1}, False, {})
    assert lists.versions(SHOP) == {"1": "v1"}
    lists.mark(SHOP, 7)
    assert (lists.complete, lists.revisions()) == (True, {SHOP: 7})
    lists.close()
    assert opened(tmp_path).tunnels.keys() == {1}


def test_what_an_agent_wrote_that_knew_no_versions_is_gone_on_with(tmp_path: Path) -> None:
    rows: dict[store.Key, store.Row] = {("list", SHOP): ("41", b"")}
    rows["tunnel of " + SHOP, "7"] = ("", json.dumps(document(7)).encode())
    store.write(tmp_path, rows)
    lists = opened(tmp_path)
    lists.expect([SHOP], complete=True)
    assert (lists.tunnels.keys(), lists.complete, lists.revisions()) == ({7}, True, {SHOP: 41})
    # So the server knows that it has it, and sends it again.
    assert lists.versions(SHOP) == {"7": ""}


@pytest.mark.parametrize("key", [("tunnel of " + SHOP, "2"), ("list", SHOP)])
def test_a_row_that_makes_no_sense_costs_its_own_list_the_word_that_it_is_whole(
    tmp_path: Path, key: store.Key
) -> None:
    lists = opened(tmp_path)
    lists.expect([SHOP, BANK], complete=True)
    take(lists, SHOP, 1, 2)
    take(lists, BANK, 3)
    lists.close()
    store.write(tmp_path, {key: ("", b"{}")})
    for _ in range(2):  # it is no more whole the second time
        again = opened(tmp_path)
        again.expect([SHOP, BANK], complete=True)
        assert {1, 3} <= again.tunnels.keys()
        assert (again.complete, again.revisions()) == (False, {BANK: 5})
        again.close()
    again.update(SHOP, tunnels(4), ["1", "2"])
    again.mark(SHOP, 6)
    assert (again.tunnels.keys(), again.complete) == ({3, 4}, True)
    again.close()
    last = opened(tmp_path)
    assert (last.tunnels.keys(), last.revisions()) == ({3, 4}, {SHOP: 6, BANK: 5})


def test_a_list_of_which_a_row_makes_no_sense_goes_when_no_manifest_names_it(tmp_path: Path) -> None:
    lists = opened(tmp_path)
    lists.expect([SHOP], complete=True)
    take(lists, SHOP, 1)
    lists.close()
    store.write(tmp_path, {("tunnel of " + SHOP, "2"): ("", b"{}")})
    again = opened(tmp_path)
    again.expect([], complete=False)
    assert (again.tunnels.keys(), again.complete) == ({1}, False)
    again.expect([], complete=True)
    assert (again.tunnels.keys(), again.complete) == (set(), True)
    again.close()
    assert [*store.read(tmp_path, ["list", "tunnel of " + SHOP])] == []


def test_a_tunnel_comes_back_from_the_disk_as_it_was() -> None:
    keys = [{"epoch": epoch, "secret": bytes([epoch] * 16).hex()} for epoch in (4, 5)]
    tunnel = plan.read(document(1) | {"keys": keys, "signing-epoch": 4, "endpoints": ["10.0.0.1", "fd00::1"]})
    assert plan.read(plan.document(tunnel)) == tunnel
