# SPDX-License-Identifier: Apache-2.0
"""What the tables of `epicctl get` say of an object."""

from __future__ import annotations

from typing import Any

import pytest

from epic.cli.printing.listing import cells, kind_of


def _parent(status: str, reason: str) -> dict[str, Any]:
    return {
        "parentRef": {"name": "U1"},
        "conditions": [{"type": "Accepted", "status": status, "reason": reason}],
    }


@pytest.mark.parametrize(
    ("parents", "shown"),
    [
        ([], "-"),
        ([_parent("True", "Accepted")], "yes"),
        ([_parent("True", "Accepted"), _parent("False", "NoMatchingParent")], "NoMatchingParent"),
        ([_parent("False", "UnsupportedValue")] * 2, "UnsupportedValue"),
    ],
)
def test_a_route_that_a_gateway_does_not_take_says_why(parents: list[dict[str, Any]], shown: str) -> None:
    kind = kind_of("routes")
    row = {"metadata": {"name": "R1", "namespace": "shop"}, "spec": {}, "status": {"parents": parents}}
    titles = [title for title, _ in kind.columns]
    assert dict(zip(titles, cells(kind, [row])[0], strict=True))["ACCEPTED"] == shown
