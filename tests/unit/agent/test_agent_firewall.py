"""Reading the firewall's set back: what nft prints differs with the host's /etc/protocols."""

from __future__ import annotations

import json
from ipaddress import IPv4Address

import pytest

from epic.agent.gateway.desired import Element
from epic.agent.gateway.firewall import commands, parse, rules_of


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


def listing(*items: dict[str, object]) -> str:
    return json.dumps({"nftables": [{"metainfo": {}}, {"table": {"name": "epic"}}, *items]})


SET = {"set": {"name": "gateway_ports", "handle": 2, "elem": [1]}}
CHAIN = {"chain": {"name": "input", "policy": "accept", "handle": 3}}
RULE = {"rule": {"chain": "input", "handle": 4, "expr": [{"drop": None}]}}


def test_rules_are_the_same_whatever_their_handles_and_the_open_ports() -> None:
    again = [{k: {**v, "handle": 9, "elem": []} for k, v in item.items()} for item in (SET, CHAIN, RULE)]  # type: ignore[dict-item]
    assert rules_of(listing(SET, CHAIN, RULE)) == rules_of(listing(*again)) != ""
    assert rules_of(listing(SET, CHAIN, RULE, RULE)) != rules_of(listing(SET, CHAIN, RULE))


@pytest.mark.parametrize("items", [[], [SET], [SET, CHAIN], [CHAIN, RULE]])
def test_a_table_without_rules_or_set_is_none(items: list[dict[str, object]]) -> None:
    assert rules_of(listing(*items)) == ""
