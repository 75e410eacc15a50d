# SPDX-License-Identifier: Apache-2.0
"""What the tables of `epicctl get` show of objects."""

from __future__ import annotations

from typing import Any

import pytest

from epic.cli.printing.listing import kind_of

BOTH = {"public-address": "203.0.113.1", "alt-address": "2001:db8::1"}
RECORDS = [{"dnsName": "web.example.net"}, {"dnsName": "web.example.net"}]


def cells(kind: str, row: dict[str, Any]) -> dict[str, str]:
    return {name: cell(row) for name, cell in kind_of(kind).columns if name in ("ADDRESS", "DNS NAME")}


@pytest.mark.parametrize(
    ("spec", "address"),
    [
        (BOTH, "203.0.113.1, 2001:db8::1"),
        ({"public-address": "203.0.113.1", "alt-address": None}, "203.0.113.1"),
        ({}, "-"),
    ],
)
def test_a_gateway_has_all_its_addresses_and_its_name_once(spec: dict[str, Any], address: str) -> None:
    found = cells("gateways", {"spec": {**spec, "endpoints": RECORDS}})
    assert found == {"ADDRESS": address, "DNS NAME": "web.example.net"}


def test_so_has_what_shares_one() -> None:
    assert cells("members", {"status": {"gateway": BOTH}}) == {"ADDRESS": "203.0.113.1, 2001:db8::1"}
    assert cells("members", {"status": {}}) == {"ADDRESS": "-"}
