# SPDX-License-Identifier: Apache-2.0
"""How what nodes say comes into the store."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from stores import open_store

from epic.ads import statuses
from epic.ads.statuses import Statuses
from epic.model.resources import GWProxy


async def test_what_concerns_more_gateways_than_a_commit_takes_is_written_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statuses, "_AT_ONCE", 2)
    status = {"instances": [{"node": "e1", "inside-address": "100.64.0.1", "ready": True}]}
    with closing(open_store(tmp_path / "epic.db")) as store:
        with store.transaction() as transaction:
            for name in "abcde":
                metadata = {"name": name, "namespace": "x"}
                given = {"metadata": metadata, "spec": {}, "status": status}
                transaction.create(GWProxy.model_validate(given))
        before = store.revision
        await Statuses(store).silent([proxy.id for proxy in store.list(GWProxy)], "e1")
        changed = [p for p in store.list(GWProxy) if p.metadata.resource_version > before]
        assert len(changed) == 5
        assert store.revision == before + 3
