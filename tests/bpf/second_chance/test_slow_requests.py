# SPDX-License-Identifier: Apache-2.0
"""What a request that took long is put down to."""

from __future__ import annotations

from typing import Any

import pytest
from slow import explain


def told(**changes: Any) -> dict[str, Any]:
    """Half a second of a request, of which nothing is known."""
    return {"kind": "http1", "begun": 7.0, "asked": 7.0, "ended": 7.5, "lost": 0, "upstream": None} | changes


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"lost": 1}, "packets to the gateway were lost"),
        ({"lost": 1, "asked": 7.4}, "packets to the gateway were lost opening its connection"),
        ({"asked": 7.4}, "no packet to the gateway was lost opening its connection"),
        ({"upstream": 450}, "between gateway and backend"),
        ({"upstream": 3}, "at the gateway, or its answer was lost"),
        ({}, "at the gateway, or its answer was lost"),
    ],
)
def test_the_layer_that_held_a_request_up_is_named(changes: dict[str, Any], cause: str) -> None:
    slow, causes = explain([told(**changes)], lambda _begun, _ended: 0.1)
    assert (len(slow), causes) == (1, {f"http1: {cause}": 1})


def test_what_did_not_get_to_run_explains_a_request_that_would_have_been_fast_otherwise() -> None:
    assert explain([told()], lambda begun, ended: (ended - begun) * 0.6) == ([], {})
    assert len(explain([told()], lambda begun, ended: (ended - begun) * 0.4)[0]) == 1


def test_a_packet_that_was_lost_is_never_explained_by_that() -> None:
    assert len(explain([told(lost=1)], lambda begun, ended: ended - begun)[0]) == 1
