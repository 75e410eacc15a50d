# SPDX-License-Identifier: Apache-2.0
"""What does not fit the underlay: the answer where the sender is on the other side of the interface."""

from __future__ import annotations

from typing import Any

import pytest
from frames import (
    ALL,
    ETHER,
    FAMILIES,
    MAPPED,
    MAPPED6,
    TUNNEL,
    UNDERLAY_MTU,
    Families,
    hello,
    ip,
    recomputed,
)
from gue_scapy import CHECKSUM
from host import EGRESS, GATEWAY, INSTANCE, POD, Host
from scapy.layers.inet import ICMP, TCP, UDP, IPerror, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPerror6,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from testrun import REDIRECT, SHOT

from epic.bpf.dataplane import Endpoint

pytestmark = pytest.mark.root

ENTRANCES = pytest.mark.parametrize("entrance", [INSTANCE, POD], ids=["instance", "pod"])
QUOTED = 20


def header_of(entrance: str, families: Families, **changes: Any) -> Packet:
    return families.request(**changes) if entrance == INSTANCE else families.reply(**changes)


def unfragmented(families: Families) -> dict[str, Any]:
    return {"flags": "DF", "id": 77} if families.inner == 4 else {}


def filled(packet: Packet, length: int) -> Packet:
    return packet / Raw(bytes(number % 251 for number in range(length - len(packet))))


def answer_to(families: Families, sent: Packet) -> Packet:
    """RFC 1191 and RFC 8201."""
    quoted = Raw(bytes(sent)[: families.header + QUOTED])
    back = Ether(src=ETHER.dst, dst=ETHER.src)
    if families.inner == 4:
        head = ip(sent.dst, sent.src, id=0, flags=0, ttl=64)
        return back / head / ICMP(type=3, code=4, nexthopmtu=families.largest) / quoted
    return back / ip(sent.dst, sent.src, hlim=64) / ICMPv6PacketTooBig(mtu=families.largest) / quoted


def run(host: Host, program: str, sent: Packet) -> tuple[int, bytes, dict[str, int]]:
    """Verdict, packet, and what was counted as dropped."""
    role = program.split(maxsplit=1)[0]
    before = host.state(role)
    ran = host.run(program, ETHER / sent)
    after = host.state(role)
    assert before[:2] == after[:2]
    counted = {name: n - before.drops[name] for name, n in after.drops.items() if n != before.drops[name]}
    return ran.verdict, ran.packet, counted


@ENTRANCES
@FAMILIES
@pytest.mark.parametrize("more", [1, 48, 1000])
def test_the_sender_is_told_what_fits(host: Host, entrance: str, families: Families, more: int) -> None:
    header = header_of(entrance, families, **unfragmented(families))
    for sent in (header / UDP(sport=1, dport=2), header / TCP(options=[("Timestamp", (1, 2))])):
        packet = filled(sent, families.largest + more)
        verdict, answer, counted = run(host, entrance, packet)
        assert (verdict, counted) == (REDIRECT, {"too_big": 1})
        assert answer == bytes(answer_to(families, packet)) == recomputed(answer)


@ENTRANCES
@FAMILIES
def test_echo_requests_are_answered_too(host: Host, entrance: str, families: Families) -> None:
    header = header_of(entrance, families, **unfragmented(families))
    sent = filled(header / (ICMP() if families.inner == 4 else ICMPv6EchoRequest()), families.largest + 1)
    assert run(host, entrance, sent)[:2] == (REDIRECT, bytes(answer_to(families, sent)))


@FAMILIES
def test_the_answer_comes_from_the_address_that_was_sent_to(host: Host, families: Families) -> None:
    mapped = MAPPED if families.inner == 4 else MAPPED6
    host.gateway.set_endpoint(families.inside, mapped, Endpoint(TUNNEL, real=families.endpoint))
    head = ip(families.inside, mapped, **unfragmented(families)) / UDP()
    sent = filled(head, families.largest + 1)
    assert run(host, INSTANCE, sent)[:2] == (REDIRECT, bytes(answer_to(families, sent)))


@ENTRANCES
@FAMILIES
def test_the_largest_that_fits_is_sent(host: Host, entrance: str, families: Families) -> None:
    sent = filled(header_of(entrance, families, **unfragmented(families)) / UDP(), families.largest)
    ran = host.run(entrance, ETHER / sent)
    assert ran.verdict == REDIRECT
    assert len(ran.packet) == 14 + UNDERLAY_MTU


@ENTRANCES
@FAMILIES
def test_errors_and_later_fragments_get_no_answer(host: Host, entrance: str, families: Families) -> None:
    header, size = header_of(entrance, families, **unfragmented(families)), families.largest + 1
    if families.inner == 4:
        cases = [
            filled(header / ICMP(type=3) / IPerror(), size),
            filled(header / ICMP(type=11) / IPerror(), size),
            filled(header_of(entrance, families, frag=9, proto=17, flags="DF"), size),
            filled(header_of(entrance, families, flags="DF", options=[IPOption_NOP()] * 4) / UDP(), size),
        ]
    else:
        cases = [
            filled(header / ICMPv6TimeExceeded() / IPerror6(), size),
            filled(header / IPv6ExtHdrFragment(offset=9, nh=17), size),
        ]
    for sent in cases:
        verdict, _, counted = run(host, entrance, sent)
        assert (verdict, counted) == (SHOT, {"too_big": 1}), sent.summary()


@ENTRANCES
@pytest.mark.parametrize("families", [ALL[0], ALL[2]], ids=str)
def test_what_may_be_fragmented_gets_no_answer(host: Host, entrance: str, families: Families) -> None:
    sent = filled(header_of(entrance, families) / UDP(), families.largest + 1)
    assert run(host, entrance, sent)[::2] == (SHOT, {"too_big": 1})


@FAMILIES
def test_behind_the_stack_there_is_nobody_to_answer_to(host: Host, families: Families) -> None:
    sent = filled(families.reply(**unfragmented(families)) / TCP(), families.largest + 1)
    assert run(host, EGRESS, sent)[::2] == (SHOT, {"too_big": 1})


@ENTRANCES
@FAMILIES
def test_datagrams_of_a_gso_packet_must_fit(host: Host, entrance: str, families: Families) -> None:
    sent = filled(header_of(entrance, families, **unfragmented(families)) / UDP(), 3000)
    room = families.largest - families.header - 8
    host.program(entrance).gso(room + 1, 2)
    verdict, answer, counted = run(host, entrance, sent)
    assert (verdict, counted) == (REDIRECT, {"too_big": 1})
    # The kernel fills in the first bytes only, as of any packet.
    assert answer == bytes(answer_to(families, sent))


@ENTRANCES
@FAMILIES
def test_a_gso_packet_whose_segments_fit_is_not_too_big(
    host: Host, entrance: str, families: Families
) -> None:
    """The kernel of these tests knows no kind of the GSO packet and refuses to wrap it: it got that far."""
    header = header_of(entrance, families, **unfragmented(families))
    for transport, length in ((UDP(), 8), (TCP(), 20), (TCP(options=[("Timestamp", (1, 2))]), 32)):
        host.program(entrance).gso(families.largest - families.header - length, 3)
        assert run(host, entrance, filled(header / transport, 3500))[::2] == (SHOT, {"no_room": 1})
    host.program(entrance).gso(UNDERLAY_MTU, 2)
    assert run(host, entrance, filled(header / TCP(), 3500))[::2] == (SHOT, {"no_room": 1})


@ENTRANCES
@FAMILIES
def test_a_gso_packet_of_an_unknown_protocol_is_too_big(
    host: Host, entrance: str, families: Families
) -> None:
    changes = {"proto": 132} if families.inner == 4 else {"nh": 132}
    header = header_of(entrance, families, **(unfragmented(families) | changes))
    host.program(entrance).gso(500, 3)
    assert run(host, entrance, filled(header, 1400))[2] == {"too_big": 1}


@FAMILIES
def test_with_checksums_segments_that_do_not_fit_are_answered(host: Host, families: Families) -> None:
    """Nobody makes them smaller when they are cut up, so their sender is told as of a single packet."""
    host.run(GATEWAY, hello(families, 50, lane_flags=CHECKSUM))
    header = header_of(INSTANCE, families, **unfragmented(families))
    sent = filled(header / TCP(), 3500)
    host.program(INSTANCE).gso(families.largest - families.header - 19, 3)
    assert run(host, INSTANCE, sent) == (REDIRECT, bytes(answer_to(families, sent)), {"too_big": 1})
    host.program(INSTANCE).gso(families.largest - families.header - 20, 3)
    assert run(host, INSTANCE, sent) == (REDIRECT, bytes(ETHER / sent), {})
