# SPDX-License-Identifier: Apache-2.0
"""Objects that cannot be read, as an operator sees and ends them with epicctl."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

from epic.model.base import Metadata
from epic.model.resources import GWRoute
from epic.store.objects import Key, Put

Epicctl = Callable[..., subprocess.CompletedProcess[str]]


def test_status_names_an_object_that_cannot_be_read_and_discard_removes_it(
    epicctl: Epicctl, live_api: Any
) -> None:
    store = live_api.store
    with store.transaction() as transaction:
        route = {"metadata": Metadata(name="R1", namespace="shop"), "spec": {"client-ref": {"uid": "R1"}}}
        made = transaction.create(GWRoute.model_validate(route))
    key = Key(GWRoute.kind, "shop", "R1")
    broken = store._thread.call(store._store.commit(Put(key, b'{"\x1b[2J"', made.metadata.resource_version)))
    store._thread.call(store._cache.reach(broken))
    done = epicctl("status")
    assert done.returncode == 1
    assert "GWRoute shop/R1: it cannot be read (" in done.stdout
    assert "epicctl discard GWRoute R1 -A shop" in done.stdout
    assert "\x1b[2J" not in done.stdout
    assert epicctl("discard", "GWRoute", "R1", "-A", "shop").returncode == 0
    assert "R1" not in epicctl("status").stdout
    refused = epicctl("discard", "GWRoute", "R1", "-A", "shop")
    assert refused.returncode == 1
    assert "there is no GWRoute 'R1' here that cannot be read" in refused.stderr
