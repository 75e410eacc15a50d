# SPDX-License-Identifier: Apache-2.0
"""What is found in the bytes of an object that cannot be read."""

from __future__ import annotations

import json
from ipaddress import ip_address

import pytest

from epic.lifecycle.salvage import salvage


@pytest.mark.parametrize(
    "text",
    [
        "203.0.113.7",
        "0.0.0.1",
        "::",
        "::7",
        "2001:db8::7",
        "2001:DB8:0:0:1::",
        "2001:db8:1:2:3:4:5:6",
        "::ffff:203.0.113.7",
        "2001:0db8:ffff:ffff:ffff:ffff:203.100.113.255",
    ],
)
def test_an_address_of_either_family_is_found_in_any_field(text: str) -> None:
    value = json.dumps({"x": [{"y": text}]}).encode()
    assert salvage(value[:-2]).addresses == {ip_address(text)}


@pytest.mark.parametrize(
    "text", ["", ":", "a", "beef", "1.2.3", "1.2.3.4.5", "2001:db8::7/64", "12345::", "7:::7"]
)
def test_nothing_else_is_an_address(text: str) -> None:
    assert salvage(json.dumps(text).encode()).addresses == frozenset()


@pytest.mark.parametrize("long", [":" * 100_000, "1." * 100_000, "f" * 100_000, '":' * 50_000])
def test_a_long_text_like_addresses_is_read_through_once(long: str) -> None:
    """Where it was tried in many ways, this did not end."""
    found = salvage(f'"{long}g", "203.0.113.7", "a.example.net"'.encode())
    assert found.addresses == {ip_address("203.0.113.7")}
    assert "a.example.net" in found.dns_names
