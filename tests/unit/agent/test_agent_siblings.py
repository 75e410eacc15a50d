# SPDX-License-Identifier: Apache-2.0
"""Siblings: what the programs get of what the control plane sends.

- A list without this node does nothing.
- The order is the control plane's; nodes that are silent are skipped, this one never is.
- What the programs have is compared with what is wanted; nothing is removed before all is known.
- The version that is told is that of what the programs have, not of what is on its way there.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from agent_samples import (
    INSIDE,
    INTERFACE,
    KEY,
    PUBLIC,
    PUBLIC6,
    SIBLINGS,
    WEB,
    instance,
    siblings_message,
)

from epic.agent.gateway.chance.second_chance import SecondChance, find_refusal, moved
from epic.agent.gateway.chance.siblings import Siblings, account_number, read_siblings
from epic.bpf import dataplane as bpf
from epic.bpf.dataplane import Address
from epic.errors import Unavailable

TWO, THREE = IPv4Address("172.30.11.3"), IPv4Address("172.30.11.4")
OTHER = IPv4Address("203.0.113.8")


class Programs:
    """Notes what it is given. Those that `refuses` names cannot be set."""

    def __init__(self) -> None:
        self.entries: dict[Address, bpf.Siblings] = {}
        self.calls: list[str] = []
        self.refuses: set[Address] = set()

    def siblings(self) -> Iterator[tuple[Address, bpf.Siblings]]:
        yield from dict(self.entries).items()

    def set_siblings(self, public: Address, siblings: bpf.Siblings) -> None:
        if public in self.refuses:
            raise Unavailable("the map is full")
        self.calls.append(f"set {public}")
        self.entries[public] = siblings

    def delete_siblings(self, public: Address) -> None:
        self.calls.append(f"delete {public}")
        del self.entries[public]


class Node:
    """The node epic1."""

    def __init__(self, programs: Programs | None = None, refusal: str = "") -> None:
        self.programs = programs or Programs()
        self.chance = SecondChance(self.programs, "epic1", refusal)  # type: ignore[arg-type]

    def start(self, *siblings: Siblings) -> None:
        self.chance.start({s.gateway: s for s in siblings})

    def sync(
        self, *siblings: Siblings, namespace: int | None = 4, whole: bool = False, may_delete: bool = True
    ) -> bool:
        wanted = {s.gateway: s for s in siblings}
        namespaces = {} if namespace is None else dict.fromkeys(wanted, namespace)
        known = {} if whole else dict.fromkeys(s.gateway for s in self.chance.known)
        self.chance.take({**known, **wanted}, namespaces, whole=whole, may_delete=may_delete)
        if whole:
            for _ in self.chance.compare():
                pass
        return self.work()

    def work(self) -> bool:
        while self.chance.work():
            pass
        return self.chance.settled

    def calls(self) -> list[str]:
        """What was done since the last call."""
        found, self.programs.calls = self.programs.calls, []
        return found


def siblings(version: str = "v1", **changes: object) -> Siblings:
    return read_siblings(siblings_message(**changes), version)


BANK = siblings(gateway="bank.web", public_addresses=[str(OTHER)])


def test_the_programs_get_the_siblings_in_the_order_of_the_control_plane() -> None:
    node = Node()
    assert node.sync(siblings())
    assert node.programs.entries == {
        PUBLIC: bpf.Siblings(
            own=0,
            netns=4,
            siblings=(
                bpf.Sibling(2, THREE, draining=True, alive=True),
                bpf.Sibling(0, IPv4Address("172.30.11.2"), draining=False, alive=True),
                bpf.Sibling(1, TWO, draining=False, alive=True),
            ),
            keys=(None, KEY),
            active=1,
            account=account_number("shop"),
        )
    }


def test_accounts_have_numbers_of_their_own_that_every_agent_gives_them() -> None:
    assert account_number("a") == 0xCABD1BCA128197CB
    assert len({account_number(f"account-{n}") for n in range(10_000)}) == 10_000


def test_one_that_leaves_is_nobody_to_pass_packets_on_to() -> None:
    node, message = Node(), siblings_message()
    message.siblings[0].leaving = True
    parting = read_siblings(message, "v2")
    node.sync(parting)
    entry = node.programs.entries[PUBLIC]
    assert [(s.index, s.leaving) for s in entry.siblings] == [(2, True), (0, False), (1, False)]
    assert [other.address for other in parting.others("epic1")] == [TWO]


def test_when_they_joined_is_told_as_far_as_the_programs_can_tell_it() -> None:
    node, message = Node(), siblings_message()
    for sibling, joined in zip(message.siblings, (3, 65_535, 65_536 + 9), strict=True):
        sibling.joined = joined
    newer = read_siblings(message, "v2")
    node.sync(newer)
    assert [s.joined for s in node.programs.entries[PUBLIC].siblings] == [3, 65_535, 9]
    node.calls()
    node.sync(newer, whole=True)
    assert node.calls() == []


def test_nothing_is_set_that_is_there() -> None:
    node = Node()
    node.sync(siblings(), BANK)
    assert node.calls() == [f"set {PUBLIC}", f"set {OTHER}"]
    node.sync(siblings(), BANK, whole=True)
    assert node.calls() == []


def test_a_namespace_that_goes_and_comes_is_told_at_once() -> None:
    node = Node()
    node.sync(siblings(), namespace=None)
    assert node.programs.entries[PUBLIC].netns is None
    assert node.chance.applied == {WEB: "v1"}
    node.sync(siblings(), namespace=0)
    assert node.programs.entries[PUBLIC].netns == 0


def test_what_others_take_away_or_change_is_mended_on_a_whole_look() -> None:
    node = Node()
    node.sync(siblings(), BANK)
    node.calls()
    node.programs.entries.clear()
    node.sync(siblings(), BANK)
    assert node.calls() == []
    node.sync(siblings(), BANK, whole=True)
    assert node.calls() == [f"set {PUBLIC}", f"set {OTHER}"]


def test_of_gateways_that_nothing_was_said_of_nothing_is_looked_at() -> None:
    node = Node()
    node.sync(siblings(), BANK)
    node.programs.entries.clear()
    node.calls()
    node.chance.take({WEB: siblings("v2", siblings=SIBLINGS[1:])}, {WEB: 4}, whole=False, may_delete=True)
    assert node.work()
    assert node.calls() == [f"set {PUBLIC}"]
    assert node.chance.applied == {WEB: "v2", "bank.web": "v1"}


def test_many_gateways_are_set_in_parts() -> None:
    node = Node()
    names = {f"shop.g{n}": str(OTHER + n) for n in range(100)}
    many = {name: siblings(gateway=name, public_addresses=[public]) for name, public in names.items()}
    node.chance.take(many, {}, whole=True, may_delete=True)
    assert node.chance.work()
    assert 0 < len(node.calls()) < 50
    assert node.work()
    assert node.chance.applied == dict.fromkeys(many, "v1")


def test_what_is_set_while_all_is_compared_stays() -> None:
    node = Node()
    node.sync(siblings())
    comparison = node.chance.compare()
    next(comparison)
    node.chance.take({"bank.web": BANK}, {}, whole=False, may_delete=True)
    assert node.work()
    assert list(comparison) == []
    assert node.work()
    assert node.calls() == [f"set {PUBLIC}", f"set {OTHER}"]


@pytest.mark.parametrize("leaves_first", [True, False])
def test_an_address_may_pass_from_one_gateway_to_another(leaves_first: bool) -> None:
    node, heir = Node(), siblings("v7", gateway="bank.web", siblings=SIBLINGS[1:])
    node.sync(siblings())
    changes: list[dict[str, Siblings | None]] = [{"bank.web": heir}, {WEB: None}]
    for change in reversed(changes) if leaves_first else changes:
        node.chance.take(change, {}, whole=False, may_delete=True)
        assert node.work()
    assert len(node.programs.entries[PUBLIC].siblings) == 2
    assert node.chance.applied == {"bank.web": "v7"}


def test_what_nobody_wants_goes_when_all_is_known() -> None:
    programs = Programs()
    Node(programs).sync(siblings(), BANK)
    node = Node(programs)
    node.start()
    node.calls()
    node.sync(siblings(), may_delete=False)
    assert node.calls() == []
    node.sync(siblings())
    assert node.calls() == [f"delete {OTHER}"]


def test_an_agent_that_starts_touches_nothing_and_tells_what_the_programs_have() -> None:
    programs = Programs()
    Node(programs).sync(siblings())
    node = Node(programs)
    node.start(siblings())
    # This is told before anything is looked at, for a node that has no list is waited for by nobody.
    assert node.chance.applied == {WEB: "v1"}
    node.calls()
    node.sync(siblings(), whole=True)
    assert (node.calls(), node.chance.applied) == ([], {WEB: "v1"})


def test_a_list_that_the_programs_have_from_who_knows_when_is_not_told_to_be_none() -> None:
    programs = Programs()
    Node(programs).sync(siblings())
    node = Node(programs)
    node.start(siblings("v2", siblings=SIBLINGS[1:]))
    assert node.chance.applied == {WEB: "unknown"}
    node.sync(siblings("v2", siblings=SIBLINGS[1:]))
    assert node.chance.applied == {WEB: "v2"}


def test_the_version_that_is_told_is_the_one_that_the_programs_have() -> None:
    node = Node()
    node.sync(siblings())
    node.programs.refuses.add(PUBLIC)
    assert not node.sync(siblings("v2", siblings=SIBLINGS[1:]))
    assert node.chance.applied == {WEB: "v1"}
    (problem,) = node.chance.problems
    assert "203.0.113.7: the map is full" in problem
    node.programs.refuses.clear()
    assert node.sync(siblings("v2", siblings=SIBLINGS[1:]))
    assert (node.chance.applied, node.chance.problems) == ({WEB: "v2"}, ())


def test_a_gateway_with_two_addresses_is_known_by_both_and_to_be_so_when_both_are_set() -> None:
    node = Node()
    both = siblings(public_addresses=[str(PUBLIC), str(PUBLIC6)])
    node.programs.refuses.add(PUBLIC6)
    assert not node.sync(both)
    assert node.chance.applied == {WEB: "unknown"}
    node.programs.refuses.clear()
    assert node.sync(both)
    assert node.programs.entries.keys() == {PUBLIC, PUBLIC6}
    assert node.programs.entries[PUBLIC] == node.programs.entries[PUBLIC6]
    assert node.chance.applied == {WEB: "v1"}
    node.sync(siblings("v2"))
    assert (node.programs.entries.keys(), node.chance.applied) == ({PUBLIC}, {WEB: "v2"})


def test_one_gateway_that_cannot_be_set_stops_no_other() -> None:
    node = Node()
    node.programs.refuses.add(PUBLIC)
    assert not node.sync(siblings(), BANK)
    assert node.chance.applied == {"bank.web": "v1"}


def test_a_silent_node_is_skipped_until_it_speaks_again() -> None:
    node = Node()
    node.sync(siblings(), BANK)
    node.chance.lost = frozenset({THREE})
    node.chance.renew()
    assert node.work()
    assert [s.alive for s in node.programs.entries[PUBLIC].siblings] == [False, True, True]
    assert [s.alive for s in node.programs.entries[OTHER].siblings] == [False, True, True]
    # It was said before who is silent, and a new agent must not forget it.
    later = Node(node.programs)
    later.start(siblings(), BANK)
    assert later.chance.lost == {THREE}
    node.chance.lost = frozenset()
    node.chance.renew()
    assert node.work()
    assert all(s.alive for s in node.programs.entries[PUBLIC].siblings)


def test_this_node_is_never_skipped() -> None:
    node = Node()
    node.chance.lost = frozenset(IPv4Address(s.address) for s in SIBLINGS)
    node.sync(siblings())
    assert [s.alive for s in node.programs.entries[PUBLIC].siblings] == [False, True, False]


def test_a_list_without_this_node_does_nothing() -> None:
    node = Node()
    node.sync(siblings(siblings=SIBLINGS[2:]), BANK)
    assert node.programs.entries.keys() == {OTHER}
    assert node.chance.problems == (f"this node is not among the siblings of {WEB}",)


def test_programs_that_cannot_be_asked_stop_nothing_else() -> None:
    class Broken(Programs):
        def siblings(self) -> Iterator[tuple[Address, bpf.Siblings]]:
            raise OSError(1, "Operation not permitted")

    node = Node(Broken())
    node.start(siblings())
    assert not node.sync(siblings(), whole=True)
    assert (len(node.chance.problems), node.chance.applied) == (1, {})


def test_a_node_that_does_not_take_part_leaves_nothing() -> None:
    programs = Programs()
    Node(programs).sync(siblings())
    node = Node(programs, refusal="it is switched off")
    node.start()
    node.sync(siblings(), may_delete=False)
    assert (programs.entries, node.chance.applied) == ({}, {})


def test_a_node_says_why_it_does_not_take_part(tmp_path: Path) -> None:
    assert find_refusal(True, tmp_path) == ""
    assert "gateway_node_second_chance" in find_refusal(False, tmp_path)
    assert "types" in find_refusal(True, tmp_path / "vmlinux")


def test_a_gateway_whose_interface_leads_elsewhere_is_found_among_all() -> None:
    other = instance("shop.other", INSIDE + 1)
    instances = {WEB: instance(), "shop.other": other}
    assert moved(instances, {}, {}) == set()
    assert moved(instances, {other.interface: 3}, {other.interface: 3, "veth0": 4}) == set()
    assert moved(instances, {other.interface: 3}, {other.interface: 3, INTERFACE: 4}) == {WEB}
    assert moved(instances, {other.interface: 3, INTERFACE: 4}, {INTERFACE: 5}) == {WEB, "shop.other"}
