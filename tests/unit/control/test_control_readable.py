# SPDX-License-Identifier: Apache-2.0
"""The control plane does not start with a store that a newer EPIC has written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest
from damage import damage, write_newer
from stores import open_store

from epic.cache.store import CachedStore
from epic.control.readable import STATUS, TooNew, check_readable
from epic.model.base import Resource
from epic.model.resources import Node

UNIT = Path(__file__).parents[3] / "roles/control_plane/templates/epic-control.service.j2"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with ten nodes."""
    store = open_store(tmp_path / "epic.db")
    with store.transaction() as transaction:
        for number in range(10):
            fields = {"metadata": {"name": f"e{number}"}, "spec": {"address": f"192.0.2.{number}"}}
            transaction.create(Node.model_validate(fields))
    store.close()
    return tmp_path / "epic.db"


@pytest.fixture
def spoil(path: Path) -> Iterator[Callable[..., CachedStore]]:
    """Spoils some of the nodes, and opens the store again."""
    opened = []

    def spoiled(how: Callable[[CachedStore, Resource], None], count: int) -> CachedStore:
        store = open_store(path)
        for node in store.list(Node)[:count]:
            how(store, node)
        store.close()
        opened.append(open_store(path))
        return opened[-1]

    yield spoiled
    for store in opened:
        store.close()


def test_a_store_in_which_much_was_written_by_a_newer_epic_is_refused(
    spoil: Callable[..., CachedStore],
) -> None:
    with pytest.raises(TooNew, match=r"^10 objects of the store") as error:
        check_readable(spoil(write_newer, 10))
    assert "Node 'e0', Node 'e1'" in str(error.value)
    assert "base_version=VERSION" in str(error.value)


@pytest.mark.parametrize(("how", "count"), [(write_newer, 3), (damage, 10)])
def test_a_few_and_what_is_damaged_keep_nobody_from_being_served(
    spoil: Callable[..., CachedStore], how: Callable[[CachedStore, Resource], None], count: int
) -> None:
    store = spoil(how, count)
    check_readable(store)
    assert len(store.unreadable()) == count


def test_the_process_says_so_and_is_not_started_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(_path: Path) -> None:
        raise TooNew("10 objects")

    main = import_module("epic.control.main")
    monkeypatch.setattr(main, "load_settings", refused)
    monkeypatch.setattr(sys, "argv", ["epic-control"])
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code == STATUS
    assert capsys.readouterr().err == "epic-control: 10 objects\n"
    assert f"RestartPreventExitStatus={STATUS}\n" in UNIT.read_text()
