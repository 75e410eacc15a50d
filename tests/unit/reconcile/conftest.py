# SPDX-License-Identifier: Apache-2.0
"""A store with two EPIC nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from stores import open_store

from epic.cache.store import CachedStore
from epic.model.resources import Node


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CachedStore]:
    store = open_store(tmp_path / "epic.db")
    with store.transaction() as transaction:
        for number in (1, 2):
            fields = {"metadata": {"name": f"e{number}"}, "spec": {"address": f"192.0.2.{number}"}}
            transaction.create(Node.model_validate(fields))
    yield store
    store.close()
