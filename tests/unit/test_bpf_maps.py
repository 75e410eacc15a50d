# SPDX-License-Identifier: Apache-2.0
"""Which maps a new version of the tunnel's programs takes over."""

from __future__ import annotations

import pytest

from epic.bpf.tables.maps import FILLED, NAMES, inherited

ALL = frozenset(NAMES)
ENDPOINTS = {"endpoints", "endpoints6", "mapped"}
TUNNELS = {"tunnels", "insides", "insides6"}


def test_all_maps_are_taken_over_when_none_has_changed() -> None:
    assert inherited(NAMES) == ALL


@pytest.mark.parametrize(
    ("changed", "empty"),
    [
        ("locals", {"locals"}),
        ("peers", {"peers"}),
        ("mapped", ENDPOINTS),
        ("endpoints6", ENDPOINTS),
        ("tunnels", TUNNELS),
        ("insides", TUNNELS),
        ("slots", {"slots", "errors", "peers", "traffic"} | ENDPOINTS | TUNNELS),
    ],
)
def test_maps_whose_entries_mean_nothing_without_the_changed_one_begin_empty(
    changed: str, empty: set[str]
) -> None:
    assert ALL - inherited(ALL - {changed}) == empty


def test_what_programs_write_does_not_have_to_be_filled_by_the_agent() -> None:
    written = {"drops", "errors", "events", "owners", "peers", "refused", "traffic"}
    # What is kept of a gateway is written by the programs, too, but begins with its siblings.
    assert inherited(ALL - written) - {"budgets", "chances", "hits"} == FILLED
