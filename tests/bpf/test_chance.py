# SPDX-License-Identifier: Apache-2.0
"""Second chance, packet by packet: each branch once, and each as the second implementation has it."""

from __future__ import annotations

import pytest
from chance_bed import (
    ALL_GATEWAYS,
    CLIENTS,
    KEY,
    NODES,
    OLD,
    ORDER,
    OWN,
    PUBLICS,
    WRONG,
    Bed,
    error_about,
    node,
)
from frames import ALL, ETHER, FAMILIES, OPENED, Families, ip
from kernel import TELLS_MTU
from oracle_chance import DROPPED, FOUND, GIVE, NOT_OURS, REDIRECTED, RETURN
from scapy.layers.inet import ICMP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.packet import Packet, Raw

from epic.bpf.dataplane import Sibling

pytestmark = pytest.mark.root

ANSWER = 8
INNER = pytest.mark.parametrize("families", ALL[:2], ids=str)
FAR = 1 << 30


def ends(bed: Bed, frame: Packet | bytes) -> tuple[int, str, set[str]]:
    """Verdict, reason, and what was counted, after the rules have agreed."""
    verdict, _, reason = bed.judge(frame)
    return verdict, reason, set(+bed.chance.counted)


def receiver_of(bed: Bed, frame: Packet | bytes) -> int:
    """Index of the sibling that a frame is passed on to."""
    verdict, packet, _ = bed.judge(frame)
    assert verdict == REDIRECTED
    address = packet[30:34] if bed.over == 4 else packet[38:54]
    return next(index for index in range(16) if node(bed.over, index).packed == address)


@FAMILIES
@pytest.mark.parametrize("flags", ["A", "PA", "FA", "R", "RA", "F", ""])
def test_what_fits_a_socket_here_is_left_to_the_stack(bed: Bed, families: Families, flags: str) -> None:
    opened = bed.open(families.inner)
    assert ends(bed, ETHER / opened.packet(flags)) == (NOT_OURS, "", {"hits"})


@FAMILIES
@pytest.mark.parametrize("flags", ["A", "PA", "FA", "R", "RA", "F", ""])
def test_what_has_no_socket_here_is_passed_on_to_the_first_in_the_order(
    bed: Bed, families: Families, flags: str
) -> None:
    frame = ETHER / bed.stranger(families.inner).packet(flags, b"payload")
    assert ends(bed, frame) == (REDIRECTED, "", {"passed_on"})
    assert receiver_of(bed, frame) == ORDER[0]


@INNER
@pytest.mark.parametrize("flags", ["S", "SA", "SEC"])
def test_what_begins_a_connection_is_for_the_instance_here(bed: Bed, families: Families, flags: str) -> None:
    assert ends(bed, ETHER / bed.stranger(families.inner).packet(flags)) == (NOT_OURS, "", set())


@INNER
def test_what_is_for_no_gateway_is_left_alone(bed: Bed, families: Families) -> None:
    stranger = bed.stranger(families.inner)
    elsewhere = ip(stranger.client, stranger.public + 1) / TCP(flags="A")
    assert ends(bed, ETHER / elsewhere) == (NOT_OURS, "", set())
    with bed.namespace:
        bed.plane.delete_siblings(stranger.public)
    del bed.chance.gateways[stranger.public.packed]
    assert ends(bed, ETHER / stranger.packet()) == (NOT_OURS, "", set())


@INNER
def test_other_protocols_are_left_alone(bed: Bed, families: Families) -> None:
    head = ip(CLIENTS[families.inner], PUBLICS[families.inner])
    echo = ICMP(type=8) if families.inner == 4 else ICMPv6EchoRequest()
    for payload in (UDP(dport=443) / b"quic", echo / b"ping"):
        assert ends(bed, ETHER / head / payload) == (NOT_OURS, "", set())


@INNER
def test_fragments_and_headers_in_between_are_left_by_name(bed: Bed, families: Families) -> None:
    stranger = bed.stranger(families.inner)
    head, segment = ip(stranger.client, stranger.public), stranger.packet()[TCP]
    if families.inner == 4:
        first = ip(stranger.client, stranger.public, flags="MF") / segment
        later = ip(stranger.client, stranger.public, frag=3, proto=6) / Raw(bytes(40))
    else:
        first = head / IPv6ExtHdrFragment(m=1, nh=6) / segment
        later = head / IPv6ExtHdrFragment(offset=3, nh=6) / Raw(bytes(40))
        assert ends(bed, ETHER / head / IPv6ExtHdrDestOpt() / segment) == (NOT_OURS, "", {"unreadable"})
    for fragment in (first, later):
        assert ends(bed, ETHER / fragment) == (NOT_OURS, "", {"fragments"})


def test_options_of_ipv4_are_looked_behind(bed: Bed) -> None:
    stranger, opened = bed.stranger(4), bed.open(4)
    options = [IPOption_NOP()] * 4
    for connection, counter in ((stranger, "passed_on"), (opened, "hits")):
        head = ip(connection.client, connection.public, options=options)
        if counter == "passed_on":
            head = ip(connection.client, connection.public + 0, options=options)
        segment = connection.packet()[TCP]
        if counter == "passed_on":
            segment.sport += 1
        assert ends(bed, ETHER / head / segment)[2] == {counter}


@FAMILIES
def test_the_answer_teaches_who_is_asked_at_once_from_then_on(bed: Bed, families: Families) -> None:
    stranger = bed.stranger(families.inner)
    answer = bed.passed_on(stranger.packet(), flags=FOUND, origin=OWN, visited=0b0110, spare=1)
    assert ends(bed, answer) == (DROPPED, "", {"learned"})
    assert ends(bed, ETHER / stranger.packet()) == (REDIRECTED, "", {"to_owner"})
    assert receiver_of(bed, ETHER / stranger.packet()) == 1
    assert receiver_of(bed, ETHER / error_about(stranger)) == 1


@FAMILIES
def test_an_owner_that_does_not_live_any_more_is_not_asked(bed: Bed, families: Families) -> None:
    stranger = bed.stranger(families.inner)
    bed.judge(bed.passed_on(stranger.packet(), flags=FOUND, origin=OWN, visited=0b0110, spare=1))
    siblings = tuple(Sibling(index, node(bed.over, index), alive=index != 1) for index in ORDER)
    bed.tell(families.inner, siblings=siblings)
    assert receiver_of(bed, ETHER / stranger.packet()) == ORDER[0]


@INNER
def test_the_dead_are_passed_by_and_without_others_nothing_is_passed_on(bed: Bed, families: Families) -> None:
    frame = ETHER / bed.stranger(families.inner).packet()
    siblings = tuple(Sibling(index, node(bed.over, index), alive=index not in {3, OWN}) for index in ORDER)
    bed.tell(families.inner, siblings=siblings)
    assert receiver_of(bed, frame) == 0
    siblings = tuple(Sibling(index, node(bed.over, index), alive=index == OWN) for index in ORDER)
    bed.tell(families.inner, siblings=siblings)
    assert ends(bed, frame) == (NOT_OURS, "", {"alone"})


@INNER
def test_where_there_is_no_instance_all_but_openings_are_passed_on(bed: Bed, families: Families) -> None:
    opened = bed.open(families.inner)
    bed.tell(families.inner, netns=None)
    bed.chance.sockets.clear()
    assert ends(bed, ETHER / opened.packet())[2] == {"passed_on"}
    assert ends(bed, ETHER / opened.packet("S"))[2] == set()


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
    opened, stranger = bed.open(families.inner), bed.stranger(families.inner, client_port=999)
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
    header = packet[42:] if bed.over == 4 else packet[62:]
    assert header[6] & 15 == OWN
    stranger = bed.stranger(families.inner, client_port=999).packet()
    back = bed.passed_on(stranger, flags=RETURN, visited=0b1111, origin=OWN, spare=1)
    assert ends(bed, back) == (REDIRECTED, "", {"fallbacks"})
    assert receiver_of(bed, back) == 1


@FAMILIES
def test_a_socket_of_another_connection_is_not_given_what_fits_nobody(bed: Bed, families: Families) -> None:
    """It would answer with its own numbers, which tells the client nothing: it is to be reset."""
    strange = bed.open(families.inner).moved(FAR, FAR).packet()
    for asked in (ETHER / strange, bed.passed_on(strange, spare=OWN)):
        _, packet, _ = bed.judge(asked)
        header = packet[42:] if bed.over == 4 else packet[62:]
        assert header[6] & 15 != OWN
    back = bed.passed_on(strange, flags=RETURN, visited=0b1111, origin=OWN, spare=1)
    assert ends(bed, back) == (REDIRECTED, "", {"fallbacks"})
    assert receiver_of(bed, back) == 1


@OPENED
def test_what_is_given_is_delivered_whatever_the_sockets_are(bed: Bed, families: Families) -> None:
    stranger = bed.stranger(families.inner)
    given = bed.passed_on(stranger.packet(), flags=GIVE, visited=0b1111, spare=OWN)
    assert ends(bed, given) == (NOT_OURS, "", {"taken"})


@FAMILIES
@pytest.mark.parametrize(("sequence", "acknowledged"), [(FAR, 0), (0, FAR), (-FAR, 0), (0, -FAR)])
def test_a_socket_of_another_connection_swallows_nothing(
    bed: Bed, families: Families, sequence: int, acknowledged: int
) -> None:
    moved = bed.open(families.inner).moved(sequence, acknowledged)
    assert ends(bed, ETHER / moved.packet()) == (REDIRECTED, "", {"stale", "passed_on"})


@INNER
@pytest.mark.parametrize("distance", [-(1 << 23), 1 << 23])
def test_numbers_near_the_sockets_are_its_own(bed: Bed, families: Families, distance: int) -> None:
    opened = bed.open(families.inner)
    assert ends(bed, ETHER / opened.moved(distance, distance).packet())[2] == {"hits"}


@INNER
def test_a_connection_half_closed_goes_on(bed: Bed, families: Families) -> None:
    closed, kept = bed.instance.half_close(*bed.ends_of(families.inner))
    bed.know(closed)
    with kept:
        assert ends(bed, ETHER / closed.packet())[2] == {"hits"}


@INNER
def test_a_connection_in_time_wait_is_found(bed: Bed, families: Families) -> None:
    waiting = bed.instance.wait_in_time_wait(*bed.ends_of(families.inner))
    bed.know(waiting)
    assert ends(bed, ETHER / waiting.packet())[2] == {"hits"}
    assert ends(bed, ETHER / waiting.moved(FAR).packet())[2] == {"stale", "passed_on"}
    assert ends(bed, ETHER / waiting.moved(0, FAR).packet())[2] == {"stale", "passed_on"}


@INNER
def test_of_two_that_have_answered_a_syn_the_one_that_is_meant_is_found(bed: Bed, families: Families) -> None:
    begun = bed.instance.begin(*bed.ends_of(families.inner))
    ran = bed.run(ETHER / begun.packet())
    assert (ran.verdict, bed.counted()["hits"]) == (NOT_OURS, 1)
    assert bed.run(ETHER / begun.packet("R")).verdict == NOT_OURS
    assert bed.run(ETHER / begun.moved(0, 1).packet()).verdict == REDIRECTED
    assert bed.run(ETHER / begun.moved(FAR).packet("R")).verdict == REDIRECTED
    assert bed.run(ETHER / error_about(begun, begun.acknowledged - 1)).verdict == NOT_OURS
    assert bed.run(ETHER / error_about(begun, begun.acknowledged + 1)).verdict == REDIRECTED


@INNER
def test_a_cookie_leads_to_who_gave_it(bed: Bed, families: Families) -> None:
    bed.instance.give_cookies(always=True)
    try:
        begun = bed.instance.begin(*bed.ends_of(families.inner))
        assert bed.run(ETHER / begun.packet()).verdict == NOT_OURS
        assert bed.run(ETHER / begun.moved(0, 1 << 30).packet()).verdict == REDIRECTED
        assert bed.run(ETHER / error_about(begun)).verdict == REDIRECTED
    finally:
        bed.instance.give_cookies(always=False)


@FAMILIES
def test_an_error_goes_to_whose_packet_it_is_about(bed: Bed, families: Families) -> None:
    opened = bed.open(families.inner)
    assert ends(bed, ETHER / error_about(opened)) == (NOT_OURS, "", {"hits"})
    assert ends(bed, ETHER / error_about(opened, 1)) == (REDIRECTED, "", {"stale", "passed_on"})
    stranger = bed.stranger(families.inner, client_port=999)
    assert ends(bed, ETHER / error_about(stranger)) == (REDIRECTED, "", {"passed_on"})


@OPENED
def test_an_error_that_a_sibling_passes_on_is_delivered(bed: Bed, families: Families) -> None:
    opened = bed.open(families.inner)
    assert ends(bed, bed.passed_on(error_about(opened))) == (NOT_OURS, "", {"taken"})
    assert ends(bed, bed.passed_on(error_about(opened), flags=ANSWER))[0] == REDIRECTED


@INNER
def test_an_error_about_something_else_is_left_alone(bed: Bed, families: Families) -> None:
    opened = bed.open(families.inner)
    foreign = bytes(ETHER / error_about(opened)).replace(
        opened.public.packed + opened.client.packed, opened.client.packed * 2
    )
    assert ends(bed, foreign) == (NOT_OURS, "", set())
    assert ends(bed, bytes(ETHER / error_about(opened))[:-14]) == (NOT_OURS, "", set())


@INNER
@pytest.mark.parametrize("all_gateways", [False, True])
def test_only_so_many_unknown_flows_are_asked_about(bed: Bed, families: Families, all_gateways: bool) -> None:
    stranger, public = bed.stranger(families.inner), PUBLICS[families.inner]
    mapped = bytes(10) + b"\xff\xff" + public.packed if families.inner == 4 else public.packed
    whose = ALL_GATEWAYS if all_gateways else mapped
    bed.spend_budget(whose, 1 << 62)
    before = bed.plane.drop_counters()["chance_budget"]
    assert bed.run(ETHER / stranger.packet()).verdict == DROPPED
    assert bed.plane.drop_counters()["chance_budget"] == before + 1
    assert bed.counted()["over_budget"] == 1
    bed.judge(bed.passed_on(stranger.packet(), flags=FOUND, origin=OWN, visited=0b0110, spare=1))
    assert ends(bed, ETHER / stranger.packet())[2] == {"to_owner"}
    siblings = tuple(Sibling(index, node(bed.over, index)) for index in (OWN, 1))
    bed.tell(families.inner, siblings=siblings)
    unknown = ETHER / bed.stranger(families.inner, client_port=1).packet()
    if all_gateways:
        assert bed.run(unknown).verdict == DROPPED, "a change of one gateway's fills up what all share"
        bed.spend_budget(whose, 0)
    assert ends(bed, unknown)[2] == {"passed_on"}


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


@INNER
def test_superpackets_are_counted_as_their_segments(bed: Bed, families: Families) -> None:
    opened, stranger = bed.open(families.inner), bed.stranger(families.inner, client_port=999)
    bed.program.gso(1000, 3)
    for packet in (opened.packet("PA", bytes(3000)), stranger.packet("PA", bytes(3000))):
        bed.run(ETHER / packet)
    counted = bed.counted()
    assert (counted["hits"], counted["passed_on"]) == (3, 3)


@FAMILIES
def test_flows_are_spread_by_their_source_port(bed: Bed, families: Families) -> None:
    place = 34 if families.over == 4 else 54
    stranger = bed.stranger(families.inner)
    ports = {
        bed.run(ETHER / bed.stranger(families.inner, client_port=port).packet()).packet[place : place + 2]
        for port in range(stranger.client_port, stranger.client_port + 8)
    }
    assert len(ports) > 4
    assert min(ports) >= (49152).to_bytes(2, "big")


def families_overhead(families: Families) -> int:
    return 44 if families.over == 4 else 64


@TELLS_MTU
@FAMILIES
def test_who_sends_too_much_is_told_how_much_fits(bed: Bed, families: Families) -> None:
    stranger = bed.stranger(families.inner)
    head = families.header + 20
    mtu = 1500 - families_overhead(families)
    fits = stranger.packet("PA", bytes(mtu - head))
    longer = stranger.packet("PA", bytes(mtu - head + 1))
    for packet in (fits, longer):
        if families.inner == 4:
            packet.flags = "DF"
    assert ends(bed, ETHER / fits)[0] == REDIRECTED
    ran = bed.run(ETHER / longer)
    assert ran.verdict == REDIRECTED
    assert mtu.to_bytes(4, "big") in ran.packet[14 + families.header :][:8]
    assert stranger.public.packed + stranger.client.packed in ran.packet[14:][: families.header]


def test_what_is_for_another_nodes_address_is_left_alone(bed: Bed) -> None:
    bed.reset(4, own=3, siblings=tuple(Sibling(index, node(4, index)) for index in ORDER))
    frame = bed.passed_on(bed.stranger(4).packet(), receiver=1, sender=0, visited=0b1001)
    assert NODES[4] + 1 != node(4, OWN)
    assert ends(bed, frame) == (NOT_OURS, "", set())
