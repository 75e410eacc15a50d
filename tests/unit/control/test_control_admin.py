# SPDX-License-Identifier: Apache-2.0
"""The first administrator: made once, repaired when file and store do not agree."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from stores import open_store

from epic.api.access.auth import verify_password
from epic.cache.store import CachedStore
from epic.control.admin import ensure_admin
from epic.errors import Invalid
from epic.model.resources import User


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CachedStore]:
    store = open_store(tmp_path / "epic.db")
    yield store
    store.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "admin.yaml"


def test_credential_and_user_are_made_once(store: CachedStore, file: Path) -> None:
    assert ensure_admin(store, file)
    assert not ensure_admin(store, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    credential = yaml.safe_load(file.read_text())
    user = store.get(User, "", credential["username"])
    assert user.spec.admin
    assert verify_password(user.spec.password_hash, credential["password"])
    assert credential["password"] not in user.model_dump_json()


def test_a_credential_that_was_written_by_hand_is_taken_over(store: CachedStore, file: Path) -> None:
    ensure_admin(store, file)
    file.write_text("username: admin\npassword: of my own\n")
    assert ensure_admin(store, file)
    assert verify_password(store.get(User, "", "admin").spec.password_hash, "of my own")


def test_a_lost_store_gets_the_same_credential(store: CachedStore, file: Path, tmp_path: Path) -> None:
    ensure_admin(store, file)
    before = file.read_text()
    assert ensure_admin(open_store(tmp_path / "other.db"), file)
    assert file.read_text() == before


def test_a_broken_file_is_told(store: CachedStore, file: Path) -> None:
    file.write_text("username: admin\n")
    with pytest.raises(Invalid, match="expected the keys username and password"):
        ensure_admin(store, file)
