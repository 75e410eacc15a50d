# SPDX-License-Identifier: Apache-2.0
"""Second chance, each packet from siblings: every branch once, as the second implementation has it."""

from __future__ import annotations

import pytest
from chance_bed import (
    FAR,
    KEY,
    NODES,
    OLD,
    ORDER,
    OWN,
    PUBLICS,
    WRONG,
    Bed,
    ends,
    error_about,
    node,
    receiver_of,
)
from frames import ETHER, FAMILIES, OPENED, Families
from oracle_chance import DROPPED, NOT_OURS, REDIRECTED
from oracle_chance_passing import ANSWER, FOUND, GIVE, RETURN

from epic.bpf.dataplane import Sibling

pytestmark = pytest.mark.root


@OPENED
def test_a_packet_of_a_sibling_whose_socket_is_here_is_delivered(bed: Bed, families: Families) -> None:
    opened = bed.open(families.inner)
    frame = bed.passed_on(opened.packet("PA", b"payload"))
    assert ends(bed, frame) == (NOT_OURS, "", {"taken"})


@OPENED
def test_where_the_packet_came_in_is_told_once_that_the_socket_is_here(bed: Bed, families: Families) -> None:
    opened = bed.open(families.inner)
    frame = bed.passed_on(opened.packet("PA", bytes(500)), flags=ANSWER)
    assert ends(bed, frame) == (REDIRECTED, "", {"taken"})
    assert receiver_of(bed, frame) == 3


@OPENED
def test_nobody_is_told_who_does_not_live_any_more(bed: Bed, families: Families) -> None:
    opened = bed.open(families.inner)
    siblings = tuple(Sibling(index, node(bed.over, index), alive=index != 3) for index in ORDER)
    bed.tell(families.inner, siblings=siblings)
    assert ends(bed, bed.passed_on(opened.packet(), flags=ANSWER)) == (NOT_OURS, "", {"taken"})


@FAMILIES
def test_a_question_goes_on_to_the_next_who_was_not_asked(bed: Bed, families: Families) -> None:
    frame = bed.passed_on(bed.stranger(families.inner).packet("A", b"payload"))
    assert ends(bed, frame) == (REDIRECTED, "", {"forwarded"})
    assert receiver_of(bed, frame) == 0


@FAMILIES
def test_the_last_one_sends_it_back_to_where_it_came_in(bed: Bed, families: Families) -> None:
    frame = bed.passed_on(bed.stranger(families.inner).packet(), visited=0b1011)
    assert ends(bed, frame) == (REDIRECTED, "", {"returned"})
    assert receiver_of(bed, frame) == 3


@OPENED
def test_the_last_one_keeps_it_when_that_node_is_gone(bed: Bed, families: Families) -> None:
    siblings = tuple(Sibling(index, node(bed.over, index), alive=index != 3) for index in ORDER)
    bed.tell(families.inner, siblings=siblings)
    frame = bed.passed_on(bed.stranger(families.inner).packet(), visited=0b1011)
    assert ends(bed, frame) == (NOT_OURS, "", {"chain_ends"})


@OPENED
def test_what_comes_back_is_looked_up_again(bed: Bed, families: Families) -> None:
    """The socket may have been made meanwhile."""
    back = {"flags": RETURN, "visited": 0b1111, "origin": OWN, "spare": OWN}
    opened, stranger = bed.open(families.inner), bed.another(families.inner)
    assert ends(bed, bed.passed_on(opened.packet(), **back)) == (NOT_OURS, "", {"taken"})
    assert ends(bed, bed.passed_on(stranger.packet(), **back)) == (NOT_OURS, "", {"chain_ends"})


@OPENED
def test_what_comes_back_is_forgotten(bed: Bed, families: Families) -> None:
    stranger = bed.stranger(families.inner)
    bed.judge(bed.passed_on(stranger.packet(), flags=FOUND, origin=OWN, visited=0b0110, spare=1))
    bed.judge(bed.passed_on(stranger.packet(), flags=RETURN, visited=0b1111, origin=OWN, spare=OWN))
    assert ends(bed, ETHER / stranger.packet())[2] == {"passed_on"}


@FAMILIES
def test_who_has_a_socket_that_does_not_fit_is_noted_and_gets_it_at_the_end(
    bed: Bed, families: Families
) -> None:
    opened = bed.open(families.inner)
    stale = opened.moved(FAR).packet()
    assert ends(bed, bed.passed_on(stale)) == (REDIRECTED, "", {"stale", "forwarded"})
    _, packet, _ = bed.judge(bed.passed_on(stale))
    assert spare_of(bed, packet) == OWN
    stranger = bed.another(families.inner).packet()
    back = bed.passed_on(stranger, flags=RETURN, visited=0b1111, origin=OWN, spare=1)
    assert ends(bed, back) == (REDIRECTED, "", {"fallbacks"})
    assert receiver_of(bed, back) == 1


@OPENED
def test_what_may_be_a_sockets_here_stays_here_at_the_end(bed: Bed, families: Families) -> None:
    doubtful = bed.open(families.inner).moved(FAR).packet()
    back = bed.passed_on(doubtful, flags=RETURN, visited=0b1111, origin=OWN, spare=1)
    assert ends(bed, back) == (NOT_OURS, "", {"chain_ends"})


@OPENED
def test_nothing_is_given_to_one_that_does_not_live_any_more(bed: Bed, families: Families) -> None:
    siblings = tuple(Sibling(index, node(bed.over, index), alive=index != 1) for index in ORDER)
    bed.tell(families.inner, siblings=siblings)
    stranger = bed.stranger(families.inner).packet()
    back = bed.passed_on(stranger, flags=RETURN, visited=0b1111, origin=OWN, spare=1)
    assert ends(bed, back) == (NOT_OURS, "", {"chain_ends"})


@FAMILIES
def test_where_there_is_no_instance_nothing_is_given_to(bed: Bed, families: Families) -> None:
    bed.tell(families.inner, netns=None)
    _, packet, _ = bed.judge(bed.passed_on(bed.stranger(families.inner).packet(), spare=OWN))
    assert spare_of(bed, packet) == ORDER[2]


@FAMILIES
def test_a_socket_of_another_connection_is_not_given_what_fits_nobody(bed: Bed, families: Families) -> None:
    """It would answer with its own numbers, which tells the client nothing: it is to be reset."""
    strange = bed.open(families.inner).moved(FAR, FAR).packet()
    for asked in (ETHER / strange, bed.passed_on(strange, spare=OWN)):
        assert spare_of(bed, bed.judge(asked)[1]) != OWN
    bed.judge(bed.passed_on(strange, flags=FOUND, origin=OWN, visited=0b0110, spare=1))
    assert spare_of(bed, bed.judge(ETHER / strange)[1]) == 1
    back = bed.passed_on(strange, flags=RETURN, visited=0b1111, origin=OWN, spare=1)
    assert ends(bed, back) == (REDIRECTED, "", {"fallbacks"})
    assert receiver_of(bed, back) == 1


@OPENED
def test_what_is_given_is_delivered_whatever_the_sockets_are(bed: Bed, families: Families) -> None:
    stranger = bed.stranger(families.inner)
    given = bed.passed_on(stranger.packet(), flags=GIVE, visited=0b1111, spare=OWN)
    assert ends(bed, given) == (NOT_OURS, "", {"taken"})


@OPENED
def test_an_error_that_a_sibling_passes_on_is_delivered(bed: Bed, families: Families) -> None:
    opened = bed.open(families.inner)
    assert ends(bed, bed.passed_on(error_about(opened))) == (NOT_OURS, "", {"taken"})
    assert ends(bed, bed.passed_on(error_about(opened), flags=ANSWER))[0] == REDIRECTED


@FAMILIES
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"source": 0}, "chance_sibling", id="another's address"),
        pytest.param({"sender": 9, "visited": 1 << 9 | 8}, "chance_sibling", id="no sibling"),
        pytest.param({"receiver": 1}, "chance_sibling", id="to another address"),
        pytest.param({"key": WRONG}, "chance_tag", id="unknown key"),
        pytest.param({"slot": 0, "key": KEY}, "chance_tag", id="key of the other slot"),
        pytest.param({"visited": 0b1110}, "chance_field", id="asked before"),
        pytest.param({"visited": 0b1000}, "chance_field", id="sender was not asked"),
        pytest.param({"visited": 0b0010}, "chance_field", id="origin was not asked"),
        pytest.param({"flags": GIVE}, "chance_field", id="given to another"),
        pytest.param({"flags": RETURN}, "chance_field", id="returned to another"),
        pytest.param({"flags": FOUND}, "chance_field", id="answered to another"),
    ],
)
def test_what_no_sibling_sends_is_dropped_by_name(
    bed: Bed, families: Families, changes: dict[str, int], reason: str
) -> None:
    frame = bed.passed_on(bed.open(families.inner).packet(), **changes)
    if "receiver" in changes:
        frame = to_own_address(frame, bed)
    assert ends(bed, frame) == (DROPPED, reason, set())


def spare_of(bed: Bed, packet: bytes) -> int:
    """Who gets what is passed on if it fits nobody's socket."""
    header = packet[42:] if bed.over == 4 else packet[62:]
    return header[6] & 15


def to_own_address(frame: bytes, bed: Bed) -> bytes:
    """Another receiver's packet, sent here by the wrong node address that is ours, too."""
    own, other = node(bed.over, OWN).packed, node(bed.over, 1).packed
    siblings = tuple(Sibling(index, node(bed.over, index) + 8 * (index == OWN)) for index in ORDER)
    for inner in PUBLICS:
        bed.tell(inner, siblings=siblings)
    first = frame.index(other, 38 if bed.over == 6 else 30)
    return frame[:first] + own + frame[first + len(own) :]


@OPENED
def test_both_keys_of_a_rotation_are_good(bed: Bed, families: Families) -> None:
    opened = bed.open(families.inner)
    assert ends(bed, bed.passed_on(opened.packet(), slot=0, key=OLD))[2] == {"taken"}
    bed.tell(families.inner, keys=(None, KEY))
    assert ends(bed, bed.passed_on(opened.packet(), slot=0, key=OLD))[1] == "chance_tag"


@FAMILIES
def test_for_a_gateway_without_siblings_nothing_is_taken(bed: Bed, families: Families) -> None:
    frame = bed.passed_on(bed.stranger(families.inner).packet())
    with bed.namespace:
        bed.plane.delete_siblings(PUBLICS[families.inner])
    del bed.chance.gateways[PUBLICS[families.inner].packed]
    assert ends(bed, frame) == (DROPPED, "chance_gateway", set())


@FAMILIES
def test_only_what_has_a_flow_is_taken(bed: Bed, families: Families) -> None:
    stranger = bed.stranger(families.inner)
    good = bed.passed_on(stranger.packet())
    for packet in (
        bed.passed_on(stranger.packet("S")),
        good.replace(b"\x06" + bytes(ETHER / stranger.packet())[24:34], b"\x11" + bytes(10)),
    ):
        if packet != good:
            verdict, reason, _ = ends(bed, packet)
            assert (verdict, reason) in {(DROPPED, "chance_flow"), (DROPPED, "chance_gateway")}


def test_what_is_for_another_nodes_address_is_left_alone(bed: Bed) -> None:
    bed.reset(4, own=3, siblings=tuple(Sibling(index, node(4, index)) for index in ORDER))
    frame = bed.passed_on(bed.stranger(4).packet(), receiver=1, sender=0, visited=0b1001)
    assert NODES[4] + 1 != node(4, OWN)
    assert ends(bed, frame) == (NOT_OURS, "", set())
