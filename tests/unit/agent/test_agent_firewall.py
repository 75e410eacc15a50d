# SPDX-License-Identifier: Apache-2.0
"""Reading the firewall's set back: what nft prints differs with the host's /etc/protocols."""

from __future__ import annotations

import json
import stat
import subprocess
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest

from epic.agent.gateway import firewall as firewall_module
from epic.agent.gateway.desired import Element
from epic.agent.gateway.firewall import Firewall, commands, parse, rules_of


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


def test_elements_of_each_family_are_in_a_set_of_their_own() -> None:
    both = [Element(ip_address(text), "tcp", 80) for text in ("2001:db8::1", "203.0.113.1")]
    assert commands(both, []) == (
        "add element inet epic gateway_ports { 203.0.113.1 . tcp . 80 }\n"
        "add element inet epic gateway_ports6 { 2001:db8::1 . tcp . 80 }\n"
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


class Nft:
    """Plays `nft`: rules that are there or not, and answers that are slow or broken."""

    def __init__(self) -> None:
        self.there = True
        self.loads = True
        self.trouble: Exception | None = None
        self.unreadable: Path | None = None
        self.broken = False
        self.knows_ipv6 = True
        self.scripts: list[str] = []

    def __call__(self, arguments: list[str], script: str | None = None) -> subprocess.CompletedProcess[str]:
        if self.trouble is not None:
            raise self.trouble
        if arguments[0] == "--file" and script is None:
            if self.unreadable is not None and self.unreadable.exists():
                return self._done(1)
            self.there |= self.loads
            return self._done(0 if self.loads else 1)
        needs_ipv6 = arguments[-1] == "gateway_ports6" or "gateway_ports6" in (script or "")
        if not self.there or (needs_ipv6 and not self.knows_ipv6):
            return self._done(1, "", "Error: No such file or directory")
        self.scripts += [script] if script else []
        return self._done(0, "{" if self.broken else listing(SET_EMPTY, CHAIN, RULE))

    @staticmethod
    def _done(code: int, output: str = "", error: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(["nft"], code, output, error)


SET_EMPTY = {"set": {"name": "gateway_ports", "elem": []}}
HTTP = Element(IPv4Address("203.0.113.1"), "tcp", 80)


@pytest.fixture
async def nft(monkeypatch: pytest.MonkeyPatch) -> Nft:
    found = Nft()
    monkeypatch.setattr(firewall_module, "_nft", found)
    return found


async def kept(nft: Nft, tmp_path: Path) -> Firewall:
    """A firewall in which a port is open."""
    (tmp_path / "firewall.nft").touch()
    firewall = Firewall(tmp_path / "firewall.nft", tmp_path / "ports.nft", lambda: None)
    firewall.want(frozenset({HTTP}), may_close=True)
    assert await firewall._mend(alarmed=False)
    assert (firewall.open, firewall.broken) == ({HTTP}, False)
    return firewall


async def test_rules_that_are_gone_are_loaded_again(nft: Nft, tmp_path: Path) -> None:
    firewall = await kept(nft, tmp_path)
    nft.there = False
    assert await firewall._mend(alarmed=True)
    assert nft.there
    assert not firewall.broken


async def test_rules_that_are_gone_for_good_are_known_to_be(nft: Nft, tmp_path: Path) -> None:
    firewall = await kept(nft, tmp_path)
    nft.there = nft.loads = False
    assert not await firewall._mend(alarmed=False)
    assert firewall.broken
    assert "nothing is announced" in firewall.problems[0]
    nft.loads = True
    assert await firewall._mend(alarmed=False)
    assert (firewall.broken, firewall.problems) == (False, ())


async def test_open_ports_are_kept_for_who_loads_the_rules_readable_by_root_alone(
    nft: Nft, tmp_path: Path
) -> None:
    firewall = await kept(nft, tmp_path)
    ports = tmp_path / "ports.nft"
    assert ports.read_text() == "add element inet epic gateway_ports { 203.0.113.1 . tcp . 80 }\n"
    assert stat.S_IMODE(ports.stat().st_mode) == 0o600
    firewall.want(frozenset(), may_close=True)
    nft.there = False
    assert await firewall._mend(alarmed=True)
    assert ports.read_text() == ""


async def test_ports_that_cannot_be_kept_stop_nothing_and_are_told(nft: Nft, tmp_path: Path) -> None:
    (tmp_path / "ports.nft").mkdir()
    firewall = await kept(nft, tmp_path)
    assert "a reload of the firewall closes ports until we open them" in firewall.problems[0]
    (tmp_path / "ports.nft").rmdir()
    assert await firewall._mend(alarmed=False)
    assert firewall.problems == ()


async def test_kept_ports_that_nft_cannot_read_do_not_keep_the_rules_out(nft: Nft, tmp_path: Path) -> None:
    firewall = await kept(nft, tmp_path)
    nft.there, nft.unreadable = False, tmp_path / "ports.nft"
    assert await firewall._mend(alarmed=True)
    assert (firewall.broken, firewall.open) == (False, {HTTP})
    assert "203.0.113.1" in (tmp_path / "ports.nft").read_text()


async def test_older_rules_without_a_set_of_ipv6_open_the_ports_of_ipv4(nft: Nft, tmp_path: Path) -> None:
    nft.knows_ipv6 = False
    firewall = await kept(nft, tmp_path)
    second, six = Element(HTTP.address, "tcp", 443), Element(ip_address("2001:db8::1"), "tcp", 443)
    firewall.want(frozenset({HTTP, second, six}), may_close=True)
    await firewall._mend(alarmed=False)
    assert "203.0.113.1 . tcp . 443" in nft.scripts[-1]
    assert (firewall.open, firewall.broken) == ({HTTP, second}, False)
    assert firewall.problems == (
        "the firewall's rules have no set gateway_ports6: 1 ports of IPv6 addresses stay closed, and "
        "their gateways are not announced; run site.yml for this node",
    )
    nft.knows_ipv6 = True
    assert await firewall._mend(alarmed=False)
    assert (firewall.open, firewall.problems) == ({HTTP, second, six}, ())


@pytest.mark.parametrize("trouble", [subprocess.TimeoutExpired("nft", 10), OSError("no room"), None])
async def test_a_slow_or_broken_nft_says_nothing_of_the_firewall(
    nft: Nft, tmp_path: Path, trouble: Exception | None
) -> None:
    firewall = await kept(nft, tmp_path)
    nft.trouble, nft.broken = trouble, True
    assert not await firewall._mend(alarmed=False)
    assert (firewall.open, firewall.broken) == ({HTTP}, False)
    # Unless somebody has just changed it.
    assert not await firewall._mend(alarmed=True)
    assert firewall.broken
