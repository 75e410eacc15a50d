# SPDX-License-Identifier: Apache-2.0
"""For how long nodes are silent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from epic.heartbeats import Heard, Heartbeats

TIME = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_node_is_silent_since_it_reported_last_or_since_the_process_began() -> None:
    seconds = [100.0]
    heartbeats = Heartbeats(lambda: seconds[0])
    seconds[0] = 107
    assert heartbeats.of("e1") == Heard(None, timedelta(seconds=7))
    heartbeats.hear("e1", TIME)
    seconds[0] = 110
    assert heartbeats.of("e1") == Heard(TIME, timedelta(seconds=3))
    assert heartbeats.of("e2") == Heard(None, timedelta(seconds=10))
