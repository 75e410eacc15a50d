# SPDX-License-Identifier: Apache-2.0
"""A whole look is due some seconds after the last one, whatever else is done in between."""

from __future__ import annotations

from epic.agent.runtime.resync import Resync


def test_a_whole_look_is_due_at_first_and_some_seconds_after_each() -> None:
    now = [100.0]
    resync = Resync(5.0, lambda: now[0])
    assert resync.left == 0
    resync.begin()
    now[0] += 4
    assert resync.left == 1
    now[0] += 3
    assert resync.left == 0
    resync.begin()
    assert resync.left == 5
