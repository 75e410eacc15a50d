# SPDX-License-Identifier: Apache-2.0
"""Second chance: how many flows' owners are known at once, and which is forgotten for another."""

from __future__ import annotations

import struct
from collections import defaultdict
from itertools import product

import pytest
from chance_bed import ORDER, OWN, Bed, ends, node, receiver_of
from chance_sockets import Connection
from frames import ETHER, INNER, Families
from oracle_chance_passing import FOUND

from epic.bpf.dataplane import Sibling
from epic.bpf.packets.siphash import siphash24
from epic.bpf.tables.records import pack_address

pytestmark = pytest.mark.root

SETS, IN_SET = 65_536, 4


def sharing(bed: Bed, families: Families, number: int) -> list[Connection]:
    """So many flows whose owners are kept in one set."""
    key, sets = bed.hash_key(), defaultdict[int, list[Connection]](list)
    for public_port, client_port in product(range(1, 100), range(1024, 65_536)):
        flow = bed.stranger(families.inner, client_port=client_port, public_port=public_port)
        said = pack_address(flow.client) + pack_address(flow.public)
        hashed = siphash24(key, said + struct.pack("!HH", client_port, public_port))
        found = sets[int.from_bytes(hashed, "little") >> 32 & SETS - 1]
        found.append(flow)
        if len(found) == number:
            return found
    raise AssertionError("the hash spreads nothing")


def learn(bed: Bed, flow: Connection) -> None:
    """The sibling of index 1 says that it has it."""
    said = bed.passed_on(flow.packet(), flags=FOUND, origin=OWN, visited=0b0110, spare=1)
    assert ends(bed, said)[2] == {"learned"}


def goes_straight(bed: Bed, flow: Connection) -> bool:
    """Whether its next packet goes to the one that is known to have it."""
    before = bed.counted()["to_owner"]
    bed.run(ETHER / flow.packet())
    return bed.counted()["to_owner"] > before


@INNER
def test_of_flows_that_share_a_set_the_one_that_was_learned_first_goes(bed: Bed, families: Families) -> None:
    flows = sharing(bed, families, IN_SET + 1)
    for flow in flows:
        learn(bed, flow)
    known = [goes_straight(bed, flow) for flow in flows]
    assert known == [False] + [True] * IN_SET


@INNER
def test_what_is_learned_again_pushes_out_none(bed: Bed, families: Families) -> None:
    flows = sharing(bed, families, IN_SET)
    for flow in (*flows, flows[-1], flows[1]):
        learn(bed, flow)
    assert all(goes_straight(bed, flow) for flow in flows)


def rejoin(bed: Bed, families: Families, index: int, joined: int) -> None:
    """The sibling of that index was in no list for a while, and comes back."""
    siblings = tuple(Sibling(i, node(bed.over, i), joined=joined if i == index else 0) for i in ORDER)
    bed.tell(families.inner, siblings=siblings)


@INNER
def test_what_was_learned_of_one_that_came_back_is_not_believed(bed: Bed, families: Families) -> None:
    flow = bed.stranger(families.inner)
    learn(bed, flow)
    for joined in (1, 1 << 15, (1 << 16) - 1):
        rejoin(bed, families, 1, joined)
        assert ends(bed, ETHER / flow.packet())[2] == {"passed_on"}
        assert receiver_of(bed, ETHER / flow.packet()) == ORDER[0]
    learn(bed, flow)
    assert ends(bed, ETHER / flow.packet())[2] == {"to_owner"}
    assert receiver_of(bed, ETHER / flow.packet()) == 1


@INNER
def test_what_was_learned_of_others_stays_when_one_comes_back(bed: Bed, families: Families) -> None:
    flow = bed.stranger(families.inner)
    learn(bed, flow)
    rejoin(bed, families, 3, 7)
    assert ends(bed, ETHER / flow.packet())[2] == {"to_owner"}


@INNER
def test_the_same_flow_has_one_place_whenever_its_owner_joined(bed: Bed, families: Families) -> None:
    flows = sharing(bed, families, IN_SET)
    for flow in flows:
        learn(bed, flow)
    for joined in range(1, IN_SET + 1):
        rejoin(bed, families, 1, joined)
        learn(bed, flows[0])
    rejoin(bed, families, 1, 0)
    assert [goes_straight(bed, flow) for flow in flows] == [False] + [True] * (IN_SET - 1)
