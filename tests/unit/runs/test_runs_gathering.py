# SPDX-License-Identifier: Apache-2.0
"""Gateways that are made one upon the other: which runs wait for more of them, and for how long."""

from __future__ import annotations

import pytest

from epic.runs.gathering import LONGEST_SECONDS, QUIET_SECONDS, Gathering


def burst(gathering: Gathering, first: float, last: float) -> None:
    """A gateway is made every tenth of a second."""
    for tenth in range(round(first * 10), round(last * 10) + 1):
        gathering.hear(f"g{tenth}", tenth / 10, exists=True)


def test_a_node_without_a_run_of_late_begins_at_once() -> None:
    gathering = Gathering()
    burst(gathering, 100, 101)
    assert gathering.wait("e1", 101) == 0
    gathering.end("e1", 101 - LONGEST_SECONDS)
    assert gathering.wait("e1", 101) == 0


def test_a_node_whose_run_has_ended_waits_until_no_more_come() -> None:
    gathering = Gathering()
    burst(gathering, 100, 101)
    gathering.end("e1", 101)
    assert gathering.wait("e1", 101) == pytest.approx(QUIET_SECONDS)
    burst(gathering, 101.1, 101.5)
    assert gathering.wait("e1", 101.5) == pytest.approx(QUIET_SECONDS)
    assert gathering.wait("e1", 101.5 + QUIET_SECONDS) == 0
    assert gathering.wait("e2", 101.5) == 0


def test_a_burst_that_goes_on_and_on_holds_no_node_for_long() -> None:
    gathering = Gathering()
    gathering.end("e1", 100)
    burst(gathering, 99, 100 + LONGEST_SECONDS)
    assert gathering.wait("e1", 100 + LONGEST_SECONDS - 0.1) == pytest.approx(0.1)
    assert gathering.wait("e1", 100 + LONGEST_SECONDS) == 0


def test_one_gateway_alone_waits_for_no_others_nor_for_changes_of_those_that_are_known() -> None:
    gathering = Gathering(["old"])
    gathering.end("e1", 100)
    gathering.hear("new", 100, exists=True)
    for known in ("old", "new"):
        gathering.hear(known, 100.1, exists=True)
    assert gathering.wait("e1", 100.1) == 0


def test_a_gateway_that_went_and_is_made_again_counts_anew() -> None:
    gathering = Gathering(["a", "b"])
    gathering.end("e1", 100)
    for name in ("a", "b"):
        gathering.hear(name, 100, exists=False)
        gathering.hear(name, 100.1, exists=True)
    assert gathering.wait("e1", 100.1) == pytest.approx(QUIET_SECONDS)
