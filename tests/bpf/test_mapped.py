# SPDX-License-Identifier: Apache-2.0
"""Endpoints whose address is taken by another network's: replaced on the way, checksums included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from frames import (
    ALL,
    ETHER,
    FAMILIES,
    OPENED,
    OTHER_TUNNEL,
    TUNNEL,
    Families,
    gue,
    ip,
    opened,
    outer,
    recomputed,
    wrapped,
)
from host import GATEWAY, GATEWAY_XDP, INSTANCE, Host, gateway_tunnel
from kernel import RUNS_XDP
from scapy.layers.inet import ICMP, TCP, UDP, IPerror, IPOption_NOP, UDPerror
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6TimeExceeded,
    IPerror6,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from testrun import REDIRECT, XDP_PASS

from epic.bpf.dataplane import Endpoint

pytestmark = pytest.mark.root


@pytest.fixture
def mapped(host: Host, families: Families) -> Host:
    """Envoy calls the endpoint by its mapped address, the workload's network by its own."""
    host.gateway.delete_endpoint(families.inside, families.endpoint)
    host.gateway.set_endpoint(families.inside, families.mapped, Endpoint(TUNNEL, real=families.endpoint))
    return host


def first_fragment(f: Families, header: Packet, other_end: Packet) -> Packet:
    """The beginning of a datagram, with the checksum of all of it."""
    whole = other_end / UDP(sport=1, dport=2) / Raw(bytes(range(200)))
    datagram = bytes(type(header)(bytes(whole)).payload)
    if f.inner == 6:
        return header / IPv6ExtHdrFragment(m=1, nh=17, id=5) / Raw(datagram[:104])
    header.flags, header.proto, header.id = "MF", 17, 5
    return header / Raw(datagram[:104])


Make = Callable[[Families, Packet], Packet]
KINDS: dict[str, Make] = {
    "tcp": lambda _, h: h / TCP(flags="SA") / b"segment",
    "tcp with options": lambda _, h: h / TCP(options=[("MSS", 1400), ("Timestamp", (1, 2))]) / b"odd",
    "udp": lambda _, h: h / UDP(sport=1, dport=2) / b"datagram",
    "udp without checksum": lambda _, h: h / UDP(sport=1, dport=2, chksum=0) / b"datagram",
    "echo": lambda f, h: h / (ICMP() if f.inner == 4 else ICMPv6EchoRequest()) / b"ping",
    "echo reply": lambda f, h: h / (ICMP(type=0) if f.inner == 4 else ICMPv6EchoReply()) / b"pong",
    "later fragment": lambda f, h: (
        ip(h.src, h.dst, frag=9, proto=17) / Raw(b"\xff" * 64)
        if f.inner == 4
        else h / IPv6ExtHdrFragment(offset=9, nh=17) / Raw(b"\xff" * 64)
    ),
    "no known protocol": lambda f, h: (
        ip(h.src, h.dst, **({"proto": 200} if f.inner == 4 else {"nh": 200})) / Raw(bytes(30))
    ),
    "first fragment": lambda f, h: first_fragment(f, h, ip(h.src, h.dst)),
    "IPv4 options": lambda f, h: (
        ip(h.src, h.dst, options=[IPOption_NOP()] * 4) / UDP() if f.inner == 4 else h / UDP()
    ),
}


def error(f: Families, header: Packet, quoted_source: object, quoted_destination: object) -> Packet:
    """An ICMP error in that header about a packet between those addresses."""
    layer, kind = (IPerror, ICMP(type=3, code=1)) if f.inner == 4 else (IPerror6, ICMPv6TimeExceeded())
    fields = {"proto": 17} if f.inner == 4 else {"nh": 17}
    quoted = layer(src=str(quoted_source), dst=str(quoted_destination), **fields)
    return header / kind / quoted / UDPerror(sport=1, dport=2, len=8, chksum=0x1234)


def recomputed_if_any(kind: str, frame: bytes) -> bytes:
    """With checksums computed anew, where there are some of all of a packet."""
    return frame if "fragment" in kind or "without" in kind else recomputed(frame)


@FAMILIES
@pytest.mark.parametrize("kind", KINDS)
def test_a_request_goes_to_the_real_address(mapped: Host, families: Families, kind: str) -> None:
    f = families
    sent = KINDS[kind](f, ip(f.inside, f.mapped))
    expected = KINDS[kind](f, ip(f.inside, f.endpoint))
    ran = mapped.run(INSTANCE, ETHER / sent)
    assert ran == (REDIRECT, bytes(wrapped(f, expected)))
    inner = bytes(ETHER)[:12] + b"\x08\0\x86\xdd"[f.inner - 4 : f.inner - 2] + ran.packet[f.inner_start :]
    assert recomputed_if_any(kind, inner) == inner


@OPENED
@pytest.mark.parametrize("kind", KINDS)
def test_a_reply_comes_from_the_mapped_address(mapped: Host, families: Families, kind: str) -> None:
    f = families
    sent = KINDS[kind](f, ip(f.endpoint, f.inside))
    expected = KINDS[kind](f, ip(f.mapped, f.inside))
    ran = mapped.run(GATEWAY, outer(f.nat, f.epic) / gue(sent) / sent)
    assert ran == (REDIRECT, bytes(ETHER / expected))
    assert recomputed_if_any(kind, ran.packet) == ran.packet


@OPENED
@pytest.mark.parametrize(
    ("sent_about", "told_about"),
    [
        pytest.param("endpoint", "mapped", id="an error about a request quotes the mapped address"),
        pytest.param("foreign", "foreign", id="an error that quotes others is passed on as it is"),
    ],
)
def test_an_error_of_an_endpoint(mapped: Host, families: Families, sent_about: str, told_about: str) -> None:
    f = families
    sent = error(f, ip(f.endpoint, f.inside), f.inside, getattr(f, sent_about))
    expected = error(f, ip(f.mapped, f.inside), f.inside, getattr(f, told_about))
    ran = mapped.run(GATEWAY, outer(f.nat, f.epic) / gue(sent) / sent)
    assert ran == (REDIRECT, bytes(ETHER / expected))


@FAMILIES
def test_an_error_about_a_reply_quotes_the_real_address(mapped: Host, families: Families) -> None:
    f = families
    sent = error(f, ip(f.inside, f.mapped), f.mapped, f.inside)
    expected = error(f, ip(f.inside, f.endpoint), f.endpoint, f.inside)
    assert mapped.run(INSTANCE, ETHER / sent) == (REDIRECT, bytes(wrapped(f, expected)))


@FAMILIES
def test_a_packet_cut_inside_its_transport_header_does_no_harm(mapped: Host, families: Families) -> None:
    f = families
    for protocol, header in (
        (6, bytes(TCP())),
        (17, bytes(UDP())),
        (58, bytes(8)),
        (1, bytes([3, 1]) + bytes(30)),
    ):
        for length in range(len(header)):
            field = {"proto": protocol} if f.inner == 4 else {"nh": protocol}
            sent = ip(f.inside, f.mapped, **field) / Raw(header[:length])
            ran = mapped.run(INSTANCE, ETHER / sent)
            assert ran.verdict in (2, REDIRECT), (protocol, length)
            reply = ip(f.endpoint, f.inside, **field) / Raw(header[:length])
            back = mapped.run(GATEWAY, outer(f.nat, f.epic) / gue(reply) / reply)
            assert back.verdict in (2, REDIRECT), (protocol, length)


@FAMILIES
def test_checksums_stay_right_whatever_the_payload(mapped: Host, families: Families) -> None:
    """One's complement has two zeros: payloads that bring the sum there are looked for."""
    f = families
    for word in range(0, 65536, 251):
        sent = ip(f.inside, f.mapped) / UDP(sport=word, dport=2) / b"xy"
        frame = Ether(mapped.run(INSTANCE, ETHER / sent).packet)
        inner = frame[UDP].payload.payload
        expected = ip(f.inside, f.endpoint) / UDP(sport=word, dport=2) / b"xy"
        assert bytes(inner) == bytes(expected), word


@OPENED
def test_the_other_network_may_use_the_same_address(mapped: Host, families: Families) -> None:
    """A reply of another tunnel from the same address is the other endpoint's."""
    f = families
    mapped.add_other_tunnel()
    mapped.gateway.set_endpoint(f.inside, f.endpoint, Endpoint(OTHER_TUNNEL))
    sent = f.reply() / UDP()
    ran = mapped.run(GATEWAY, outer(f.nat, f.epic) / gue(sent) / sent)
    assert ran.packet == bytes(ETHER / ip(f.mapped, f.inside) / UDP())
    mapped.gateway.set_tunnel(gateway_tunnel(id=OTHER_TUNNEL))
    assert mapped.dropped(INSTANCE, ETHER / f.request() / UDP()) == "tunnel_unresolved"


@FAMILIES
def test_the_mapped_address_is_nothing_on_the_wire(mapped: Host, families: Families) -> None:
    f = families
    sent = ip(f.mapped, f.inside) / UDP()
    assert mapped.dropped(GATEWAY, outer(f.nat, f.epic) / gue(sent) / sent) == "endpoint_unknown"


@FAMILIES
def test_a_mapping_can_be_changed_and_taken_away(mapped: Host, families: Families) -> None:
    f = families
    reply = f.reply() / UDP()
    frame = outer(f.nat, f.epic) / gue(reply) / reply
    mapped.gateway.set_endpoint(f.inside, f.mapped, Endpoint(TUNNEL, real=f.foreign))
    assert mapped.dropped(GATEWAY, frame) == "endpoint_unknown"
    sent = ip(f.inside, f.mapped) / UDP()
    expected = ip(f.inside, f.foreign) / UDP()
    assert mapped.run(INSTANCE, ETHER / sent).packet == bytes(wrapped(f, expected))
    mapped.gateway.delete_endpoint(f.inside, f.mapped)
    assert mapped.dropped(INSTANCE, ETHER / sent) == "endpoint_unknown"


@OPENED
def test_an_endpoint_that_needs_no_mapping_any_more_keeps_its_address(
    mapped: Host, families: Families
) -> None:
    f = families
    mapped.gateway.set_endpoint(f.inside, f.endpoint, Endpoint(TUNNEL))
    mapped.gateway.delete_endpoint(f.inside, f.mapped)
    reply = f.reply() / UDP()
    ran = mapped.run(GATEWAY, outer(f.nat, f.epic) / gue(reply) / reply)
    assert ran.packet == bytes(ETHER / reply)


@RUNS_XDP
@FAMILIES
def test_before_the_stack_mapped_packets_are_left_to_the_filter(mapped: Host, families: Families) -> None:
    reply = families.reply() / UDP()
    frame = bytes(outer(families.nat, families.epic) / gue(reply) / reply)
    assert mapped.take_out(GATEWAY_XDP, frame) == (XDP_PASS, frame, b"")


@opened(ALL[1], ALL[3])
@pytest.mark.parametrize("number", [0, 43, 60], ids=["hop-by-hop", "routing", "destination options"])
def test_what_has_extension_headers_is_dropped(mapped: Host, families: Families, number: int) -> None:
    """No checksum is looked for behind them, and a wrong one is not delivered."""
    f = families
    behind = Raw(bytes([17, 0, 1, 4, 0, 0, 0, 0]) + bytes(UDP()))
    assert mapped.dropped(INSTANCE, ETHER / ip(f.inside, f.mapped, nh=number) / behind) == "inner_header"
    reply = ip(f.endpoint, f.inside, nh=number) / behind
    assert mapped.dropped(GATEWAY, outer(f.nat, f.epic) / gue(reply) / reply) == "inner_header"
