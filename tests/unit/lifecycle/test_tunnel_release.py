# SPDX-License-Identifier: Apache-2.0
"""A deleted tunnel is gone when both ends have let go of it, or never had it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from epic.lifecycle.tunnels import QUARANTINE, Evidence, is_released
from epic.model.resources import Tunnel

DELETED = datetime(2026, 1, 1, tzinfo=UTC)
SOON = DELETED + timedelta(seconds=1)
TUNNEL = Tunnel.model_validate(
    {
        "metadata": {
            "name": "7",
            "namespace": "shop",
            "deletionTimestamp": DELETED,
            "resourceVersion": 90,
        },
        "spec": {
            "proxy": "U1",
            "service": 1,
            "epic-node": "epic1",
            "inside-address": "100.64.0.1",
            "cluster-id": "c",
            "node-name": "n1",
            "node-address": "10.0.0.1",
            "keys": [],
            "signing-epoch": 1,
            "signing-since": DELETED,
        },
    }
)
WAITED_FOR = Evidence(
    epic_node_known=True, epic_end=False, workload_end=True, applied=None, silent_since=DELETED
)


def test_workload_node_that_may_have_it_is_waited_for_until_it_is_long_silent() -> None:
    assert not is_released(TUNNEL, WAITED_FOR, SOON)
    assert not is_released(TUNNEL, replace(WAITED_FOR, applied=89), SOON)
    assert is_released(TUNNEL, replace(WAITED_FOR, applied=90), SOON)
    assert is_released(TUNNEL, WAITED_FOR, DELETED + QUARANTINE)


def test_workload_node_that_was_never_told_of_it_is_not_waited_for() -> None:
    never = replace(WAITED_FOR, workload_end=False)
    assert is_released(TUNNEL, never, SOON)
    assert not is_released(TUNNEL, replace(never, epic_end=True), SOON)
    assert not is_released(TUNNEL, replace(never, epic_node_known=False), SOON)
