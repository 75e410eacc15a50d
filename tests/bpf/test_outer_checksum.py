# SPDX-License-Identifier: Apache-2.0
"""Outer UDP checksums, where a middlebox insists: filled in when asked for, and right whatever is inside."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from frames import (
    ETHER,
    FAMILIES,
    MAPPED,
    MAPPED6,
    TUNNEL,
    Families,
    hello,
    ip,
    recomputed,
    wrapped,
)
from gue_scapy import CHECKSUM
from host import EGRESS, GATEWAY, INSTANCE, POD, Host, workload_tunnel
from scapy.layers.inet import ICMP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from testrun import REDIRECT

from epic.bpf.dataplane import Endpoint

pytestmark = pytest.mark.root

EXITS = pytest.mark.parametrize("exit_", [INSTANCE, EGRESS, POD], ids=["instance", "stack", "pod"])
PAYLOAD = bytes(number * 7 % 256 for number in range(1400))


def udp_with_options(header: Packet) -> Packet:
    """Bytes behind the datagram that its checksum does not cover (RFC 9868)."""
    sound = type(header)(bytes(header / UDP() / Raw(PAYLOAD[:12])))
    return header / UDP(len=20, chksum=sound[UDP].chksum) / Raw(PAYLOAD[:31])


Make = Callable[[Families, Packet], Packet]
KINDS: dict[str, Make] = {
    "udp": lambda _, h: h / UDP() / Raw(PAYLOAD[:64]),
    "udp, odd": lambda _, h: h / UDP() / Raw(PAYLOAD[:63]),
    "udp, empty": lambda _, h: h / UDP(),
    "udp without checksum": lambda _, h: h / UDP(chksum=0) / Raw(PAYLOAD[:301]),
    "udp with options": lambda _, h: udp_with_options(h),
    "tcp": lambda _, h: h / TCP(flags="PA") / Raw(PAYLOAD[:1000]),
    "tcp, odd": lambda _, h: h / TCP(flags="PA", options=[("MSS", 1400)]) / Raw(PAYLOAD[:777]),
    "echo": lambda f, h: h / (ICMP() if f.inner == 4 else ICMPv6EchoRequest()) / Raw(PAYLOAD[:99]),
    "one byte": lambda f, h: (
        ip(h.src, h.dst, **({"proto": 200} if f.inner == 4 else {"nh": 200})) / Raw(b"x")
    ),
    "nothing": lambda f, h: ip(h.src, h.dst, **({"proto": 200} if f.inner == 4 else {"nh": 59})),
    "fragment": lambda f, h: (
        ip(h.src, h.dst, frag=9, proto=6) / Raw(PAYLOAD[:1111])
        if f.inner == 4
        else h / IPv6ExtHdrFragment(offset=9, nh=6) / Raw(PAYLOAD[:1111])
    ),
    "first fragment": lambda f, h: (
        ip(h.src, h.dst, flags="MF", proto=17) / Raw(PAYLOAD[:1112])
        if f.inner == 4
        else h / IPv6ExtHdrFragment(m=1, nh=17) / Raw(PAYLOAD[:1112])
    ),
    "options": lambda f, h: (
        ip(h.src, h.dst, options=[IPOption_NOP()] * 4) / UDP() / b"12345"
        if f.inner == 4
        else h / IPv6ExtHdrDestOpt() / UDP() / b"12345"
    ),
}


@pytest.fixture
def asking(host: Host, families: Families) -> Host:
    """Both ends want checksums."""
    host.run(GATEWAY, hello(families, 50, lane_flags=CHECKSUM))
    host.workload.set_tunnel(workload_tunnel(families.over, checksum=True))
    return host


def header_of(exit_: str, families: Families) -> Packet:
    return families.request() if exit_ == INSTANCE else families.reply()


def checked(families: Families, exit_: str, inner: Packet) -> bytes:
    """The frame with the checksum as scapy computes it."""
    return bytes(wrapped(families, inner, to_node=exit_ == INSTANCE, chksum=None))


@EXITS
@FAMILIES
@pytest.mark.parametrize("kind", KINDS)
def test_the_checksum_is_right(asking: Host, families: Families, exit_: str, kind: str) -> None:
    inner = KINDS[kind](families, header_of(exit_, families))
    ran = asking.run(exit_, ETHER / inner)
    assert ran.verdict == REDIRECT
    assert ran.packet == checked(families, exit_, inner)
    assert Ether(ran.packet)[UDP].chksum


@EXITS
@FAMILIES
def test_the_checksum_is_right_for_every_length(asking: Host, families: Families, exit_: str) -> None:
    for length in [*range(0, 12), *range(70, 110), *range(126, 131), 255, 256, 257, 1023, 1024, 1025, 1300]:
        inner = header_of(exit_, families) / UDP(chksum=0) / Raw(PAYLOAD[:length])
        assert asking.run(exit_, ETHER / inner).packet == checked(families, exit_, inner), length


@FAMILIES
def test_it_covers_the_address_that_leaves(asking: Host, families: Families) -> None:
    mapped = MAPPED if families.inner == 4 else MAPPED6
    asking.gateway.set_endpoint(families.inside, mapped, Endpoint(TUNNEL, real=families.endpoint))
    for transport in (TCP(), UDP(), UDP(chksum=0), ICMP() if families.inner == 4 else ICMPv6EchoRequest()):
        sent = ip(families.inside, mapped) / transport / b"odd"
        inner = families.request() / transport / b"odd"
        ran = asking.run(INSTANCE, ETHER / sent)
        assert ran.packet == checked(families, INSTANCE, inner), transport.summary()


@FAMILIES
def test_a_sum_of_zero_is_written_as_its_other_form(asking: Host, families: Families) -> None:
    """A checksum of 0 would say that there is none."""
    base = Ether(checked(families, INSTANCE, with_word(families, 0)))[UDP].chksum
    seen = set()
    # Each step of the word takes one off the checksum.
    for word in (base - 1, base, base + 1):
        inner = with_word(families, word % 65536)
        ran = asking.run(INSTANCE, ETHER / inner)
        assert ran.packet == checked(families, INSTANCE, inner)
        seen.add(Ether(ran.packet)[UDP].chksum)
    assert seen == {1, 0xFFFF, 0xFFFE}


def with_word(families: Families, word: int) -> Packet:
    return families.request() / UDP(chksum=0) / Raw(word.to_bytes(2, "big"))


@FAMILIES
def test_who_does_not_ask_gets_none(asking: Host, families: Families) -> None:
    asking.run(GATEWAY, hello(families, 51))
    asking.workload.set_tunnel(workload_tunnel(families.over))
    for exit_ in (INSTANCE, EGRESS, POD):
        inner = header_of(exit_, families) / UDP() / b"x"
        frame = asking.run(exit_, ETHER / inner).packet
        assert frame == bytes(wrapped(families, inner, to_node=exit_ == INSTANCE))


@FAMILIES
def test_a_packet_with_a_checksum_is_taken_as_one_without(asking: Host, families: Families) -> None:
    inner = families.request() / UDP() / b"x"
    frame = checked(families, INSTANCE, inner)
    packet = Ether(frame)
    packet[1].dst, packet[UDP].dport = str(families.node), 6080
    ran = asking.run("workload workload_underlay_ingress", recomputed(packet))
    assert ran.packet == bytes(ETHER / inner)


@FAMILIES
def test_gso_packets_are_cut_up_first(asking: Host, families: Families) -> None:
    """The interface that cuts them up is told, and the packet is not changed."""
    inner = families.request() / TCP() / Raw(bytes(3000))
    asking.program(INSTANCE).gso(1000, 3)
    ran = asking.run(INSTANCE, ETHER / inner)
    assert ran == (REDIRECT, bytes(ETHER / inner))
