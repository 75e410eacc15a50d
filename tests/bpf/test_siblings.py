# SPDX-License-Identifier: Apache-2.0
"""Siblings as the agent sees them: what it sets is there, whole, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from planes import PUBLIC
from test_dataplane import new_version

from epic.bpf.dataplane import Dataplane, Sibling, Siblings
from epic.bpf.tables.budgets import NODE, account_key
from epic.bpf.tables.maps import Map
from epic.bpf.tables.records import pack_address
from epic.errors import Invalid

pytestmark = pytest.mark.root

PUBLIC6 = IPv6Address("2001:db8:113::1")
NODES = tuple(map(IPv4Address, ("172.30.2.2", "172.30.2.3", "172.30.2.4", "172.30.2.5")))
SIBLINGS = Siblings(
    own=5,
    netns=3,
    siblings=(
        Sibling(15, NODES[2], draining=True, joined=65_535),
        Sibling(5, NODES[0]),
        Sibling(0, NODES[1], alive=False),
        Sibling(7, NODES[3], leaving=True, joined=258),
    ),
    keys=(bytes(range(16)), None),
    active=0,
    account=(1 << 64) - 1,
)
MINE = account_key(SIBLINGS.account)
"""Where the budget of its account is."""


def test_what_is_set_is_there(plane: Dataplane, bpffs: Path, object_file: Path) -> None:
    six = replace(SIBLINGS, netns=None, keys=(None, bytes(16)), active=1)
    plane.set_siblings(PUBLIC, SIBLINGS)
    plane.set_siblings(PUBLIC6, six)
    assert dict(plane.siblings()) == {PUBLIC: SIBLINGS, PUBLIC6: six}
    assert dict(Dataplane(bpffs / "plane", object_file).siblings()) == dict(plane.siblings())
    alone = Siblings(0, None, (Sibling(0, NODES[0]),), (None, bytes(16)), 1, 1)
    plane.set_siblings(PUBLIC, alone)
    plane.delete_siblings(PUBLIC6)
    plane.delete_siblings(PUBLIC6)
    assert dict(plane.siblings()) == {PUBLIC: alone}


def test_counters_begin_with_the_gateway_and_end_with_it(plane: Dataplane) -> None:
    assert dict(plane.second_chance_counters()) == {}
    plane.set_siblings(PUBLIC, SIBLINGS)
    (counters,) = dict(plane.second_chance_counters()).values()
    assert not any(vars(counters).values())
    plane.delete_siblings(PUBLIC)
    assert dict(plane.second_chance_counters()) == {}


def test_a_change_of_the_list_renews_the_gateways_budget_and_no_other(plane: Dataplane, budgets: Map) -> None:
    plane.set_siblings(PUBLIC, SIBLINGS)
    used, mine = (7).to_bytes(8, "little"), pack_address(PUBLIC)
    for key in (mine, MINE, NODE):
        budgets.set(key, used)
    plane.set_siblings(PUBLIC, replace(SIBLINGS, keys=(SIBLINGS.keys[0], bytes(16)), netns=None))
    assert (budgets.get(mine), budgets.get(MINE), budgets.get(NODE)) == (used, used, used)
    plane.set_siblings(PUBLIC, replace(SIBLINGS, siblings=SIBLINGS.siblings[:2]))
    assert (budgets.get(mine), budgets.get(MINE), budgets.get(NODE)) == (bytes(8), used, used)


@pytest.fixture
def budgets(plane: Dataplane) -> Iterator[Map]:
    (pin,) = plane._loader.directory.glob("maps/budgets")
    with closing(Map(pin, 16, 8)) as found:
        yield found


def test_an_account_has_a_budget_from_its_first_gateway_to_its_last(plane: Dataplane, budgets: Map) -> None:
    other = replace(SIBLINGS, account=2)
    for public in (PUBLIC, PUBLIC6):
        plane.set_siblings(public, SIBLINGS)
    assert budgets.get(MINE) == bytes(8)
    plane.set_siblings(PUBLIC, other)
    assert (budgets.get(MINE), budgets.get(account_key(2))) == (bytes(8), bytes(8))
    plane.delete_siblings(PUBLIC6)
    assert budgets.get(MINE) is None
    plane.delete_siblings(PUBLIC)
    assert dict(budgets.items()).keys() == {NODE}


def test_who_makes_all_gateways_anew_has_used_what_it_has_used(
    plane: Dataplane, bpffs: Path, object_file: Path, budgets: Map
) -> None:
    plane.set_siblings(PUBLIC, SIBLINGS)
    used = (1 << 62).to_bytes(8, "little")
    budgets.set(MINE, used)
    for _ in range(3):
        plane.delete_siblings(PUBLIC)
        plane.set_siblings(PUBLIC, SIBLINGS)
        assert budgets.get(MINE) == used
    plane.delete_siblings(PUBLIC)
    again = Dataplane(bpffs / "plane", object_file)
    again.set_siblings(PUBLIC6, SIBLINGS)
    assert budgets.get(MINE) == used
    again.delete_siblings(PUBLIC6)
    budgets.set(MINE, (1).to_bytes(8, "little"))
    again.delete_siblings(PUBLIC6)
    assert budgets.get(MINE) is None


def test_a_new_version_keeps_them(plane: Dataplane, bpffs: Path, object_file: Path, tmp_path: Path) -> None:
    plane.set_siblings(PUBLIC, SIBLINGS)
    newer = Dataplane(bpffs / "plane", new_version(object_file, tmp_path))
    newer.load()
    assert not newer.due
    assert dict(newer.siblings()) == {PUBLIC: SIBLINGS}
    newer.set_siblings(PUBLIC6, SIBLINGS)
    assert set(dict(newer.second_chance_counters())) == {PUBLIC, PUBLIC6}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"own": 1}, r"this node, 1, is not among the siblings \[0, 5, 7, 15\]"),
        ({"siblings": (Sibling(16, NODES[0]),)}, "indexes of their own from 0 to 15"),
        ({"siblings": (Sibling(5, NODES[0]), Sibling(5, NODES[1]))}, "indexes of their own"),
        ({"siblings": (Sibling(5, NODES[0], joined=65_536),)}, "has joined at a number from 0 to 65535"),
        ({"netns": -1}, "-1 is no id of a network namespace"),
        ({"account": 0}, "0 is no number of an account"),
        ({"active": 1}, "slot 1 signs and must hold a key"),
        ({"keys": (bytes(8), None)}, "the key in slot 0 has 8 bytes, not 16"),
    ],
)
def test_what_cannot_be_used_is_refused(plane: Dataplane, changes: dict[str, object], message: str) -> None:
    with pytest.raises(Invalid, match=f"{PUBLIC}: .*{message}"):
        plane.set_siblings(PUBLIC, replace(SIBLINGS, **changes))  # type: ignore[arg-type]
    assert dict(plane.siblings()) == {}
