# SPDX-License-Identifier: Apache-2.0
"""Second chance: how many flows' owners are known at once, and which is forgotten for another."""

from __future__ import annotations

import struct
from collections import defaultdict
from itertools import product

import pytest
from chance_bed import OWN, Bed, ends
from chance_sockets import Connection
from frames import ETHER, INNER, Families
from oracle_chance_passing import FOUND

from epic.bpf.records import pack_address
from epic.bpf.siphash import siphash24

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
