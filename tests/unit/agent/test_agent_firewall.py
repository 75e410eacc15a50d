"""Reading the firewall's set back: what nft prints differs with the host's /etc/protocols."""

from __future__ import annotations

import json
from ipaddress import IPv4Address

import pytest

from epic.agent.gateway.desired import Element
from epic.agent.gateway.firewall import commands, parse


@pytest.mark.parametrize("protocol", ["tcp", 6])
def test_an_element_is_the_same_whether_nft_names_the_protocol_or_numbers_it(protocol: str | int) -> None:
    element = {"concat": ["203.0.113.1", protocol, 80]}
    listing = json.dumps({"nftables": [{"metainfo": {}}, {"set": {"elem": [element]}}]})
    assert list(parse(listing)) == [Element(IPv4Address("203.0.113.1"), "tcp", 80)]


def test_changes_are_one_script_that_deletes_before_it_adds() -> None:
    old, new = (Element(IPv4Address("203.0.113.1"), "tcp", port) for port in (80, 81))
    assert commands([new], [old]) == (
        "delete element inet epic gateway_ports { 203.0.113.1 . tcp . 80 }\n"
        "add element inet epic gateway_ports { 203.0.113.1 . tcp . 81 }\n"
    )
