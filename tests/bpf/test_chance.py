# SPDX-License-Identifier: Apache-2.0
"""Second chance, each packet from the router: every branch once, as the second implementation has it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from chance_bed import ALL_GATEWAYS, CLIENTS, ORDER, OWN, PUBLICS, Bed, ends, error_about, node, receiver_of
from frames import ETHER, FAMILIES, INNER, OPENED, Families, ip
from kernel import TELLS_MTU
from oracle_chance import DROPPED, NOT_OURS, REDIRECTED
from oracle_chance_passing import FOUND
from scapy.layers.inet import ICMP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Raw

from epic.bpf.dataplane import Sibling

pytestmark = pytest.mark.root


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
    options = [IPOption_NOP()] * 4
    for connection, counter in ((bed.open(4), "hits"), (bed.another(4), "passed_on")):
        head = ip(connection.client, connection.public, options=options)
        assert ends(bed, ETHER / head / connection.packet()[TCP])[2] == {counter}


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


@OPENED
@pytest.mark.parametrize("kind", ["unreachable", "blackhole", "prohibit"])
def test_without_a_route_to_the_sibling_it_is_dropped_by_name(
    bed: Bed, families: Families, kind: str
) -> None:
    stranger = bed.stranger(families.inner)
    route = f"{kind} {node(bed.over, ORDER[0])}/{32 if bed.over == 4 else 128}"
    before = bed.plane.drop_counters()["chance_route"]
    bed.namespace.run(f"ip route add {route}")
    try:
        assert bed.run(ETHER / stranger.packet()).verdict == DROPPED
        onward = bed.passed_on(stranger.packet(), sender=1, origin=1, visited=0b0010)
        assert bed.run(onward).verdict == DROPPED
    finally:
        bed.namespace.run(f"ip route del {route}")
    assert bed.plane.drop_counters()["chance_route"] == before + 2
    assert bed.counted()["no_route"] == 2
    assert receiver_of(bed, ETHER / stranger.packet()) == ORDER[0]


@OPENED
def test_where_no_route_leads_to_the_sibling_it_is_dropped_likewise(bed: Bed, families: Families) -> None:
    afar = ip_address("192.0.2.77" if bed.over == 4 else "2001:db8:dead::77")
    siblings = tuple(Sibling(i, afar if i == ORDER[0] else node(bed.over, i)) for i in ORDER)
    bed.tell(families.inner, siblings=siblings)
    before = bed.plane.drop_counters()["chance_route"]
    assert bed.run(ETHER / bed.stranger(families.inner).packet()).verdict == DROPPED
    assert bed.plane.drop_counters()["chance_route"] == before + 1


@OPENED
def test_a_node_that_forwards_nothing_else_passes_packets_on(bed: Bed, families: Families) -> None:
    settings = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
    for setting in settings:
        bed.namespace.sysctl(setting, 0)
    try:
        assert receiver_of(bed, ETHER / bed.stranger(families.inner).packet()) == ORDER[0]
    finally:
        for setting in settings:
            bed.namespace.sysctl(setting, 1)


@OPENED
def test_rules_for_what_comes_in_do_not_count_for_what_is_passed_on(bed: Bed, families: Families) -> None:
    """They may have no route where there is one for what the node itself sends."""
    # A command each: many together are of one family.
    command, rule = f"ip -{bed.over}", "iif up0 lookup 999 pref 10"
    bed.namespace.run(f"{command} route add unreachable default table 999")
    bed.namespace.run(f"{command} rule add {rule}")
    try:
        assert receiver_of(bed, ETHER / bed.stranger(families.inner).packet()) == ORDER[0]
    finally:
        bed.namespace.run(f"{command} rule del {rule}")
        bed.namespace.run(f"{command} route flush table 999")


@OPENED
def test_one_that_leaves_is_asked_nothing_but_what_it_passes_on_is_taken(
    bed: Bed, families: Families
) -> None:
    siblings = tuple(Sibling(i, node(bed.over, i), leaving=i == ORDER[0]) for i in ORDER)
    bed.tell(families.inner, siblings=siblings)
    stranger = bed.stranger(families.inner)
    assert receiver_of(bed, ETHER / stranger.packet()) == ORDER[2]
    asked = bed.passed_on(stranger.packet(), sender=ORDER[0], origin=ORDER[0], visited=1 << ORDER[0])
    assert ends(bed, asked) == (REDIRECTED, "", {"forwarded"})
    last = bed.passed_on(stranger.packet(), sender=ORDER[0], origin=ORDER[0], visited=0b1011)
    assert ends(bed, last) == (NOT_OURS, "", {"chain_ends"})


@OPENED
def test_one_that_leaves_still_answers_who_does_not_know_it_yet(bed: Bed, families: Families) -> None:
    siblings = tuple(Sibling(i, node(bed.over, i), leaving=i == OWN) for i in ORDER)
    bed.tell(families.inner, siblings=siblings, netns=None)
    stranger = bed.stranger(families.inner)
    assert ends(bed, bed.passed_on(stranger.packet())) == (REDIRECTED, "", {"forwarded"})
    assert ends(bed, bed.passed_on(stranger.packet(), visited=0b1011)) == (REDIRECTED, "", {"returned"})
    assert ends(bed, ETHER / stranger.packet()) == (REDIRECTED, "", {"passed_on"})


@INNER
def test_where_there_is_no_instance_all_but_openings_are_passed_on(bed: Bed, families: Families) -> None:
    opened = bed.open(families.inner)
    bed.tell(families.inner, netns=None)
    bed.chance.sockets.clear()
    assert ends(bed, ETHER / opened.packet())[2] == {"passed_on"}
    assert ends(bed, ETHER / opened.packet("S"))[2] == set()


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
    unknown = ETHER / bed.another(families.inner).packet()
    if all_gateways:
        assert bed.run(unknown).verdict == DROPPED, "a change of one gateway's fills up what all share"
        bed.spend_budget(whose, 0)
    assert ends(bed, unknown)[2] == {"passed_on"}


@INNER
def test_superpackets_are_counted_as_their_segments(bed: Bed, families: Families) -> None:
    opened, stranger = bed.open(families.inner), bed.another(families.inner)
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


@TELLS_MTU
@FAMILIES
def test_of_a_superpacket_each_segment_has_to_fit(bed: Bed, families: Families) -> None:
    """What fits gets as far as the kernel, which does not wrap those of test runs: they tell no protocol."""
    stranger = bed.stranger(families.inner)
    most = 1500 - families_overhead(families) - families.header - 20
    for size, reason, verdict in ((most, "no_room", DROPPED), (most + 1, "too_big", REDIRECTED)):
        before = bed.plane.drop_counters()[reason]
        bed.program.gso(size, 2)
        packet = stranger.packet("PA", bytes(2 * size))
        if families.inner == 4:
            packet.flags = "DF"
        assert bed.run(ETHER / packet).verdict == verdict
        assert bed.plane.drop_counters()[reason] == before + 1
