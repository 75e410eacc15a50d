# SPDX-License-Identifier: Apache-2.0
"""Pieces of GSO packets that needed outer checksums, as they come back from being cut up."""

from __future__ import annotations

import pytest
from frames import (
    ETHER,
    FAMILIES,
    TUNNEL,
    UNDERLAY_MTU,
    Families,
    hello,
    ip,
    wrapped,
)
from gue_scapy import CHECKSUM
from host import GATEWAY, Host, workload_tunnel
from host import GATEWAY_PIECES as EPIC
from host import WORKLOAD_PIECES as NODE
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import ICMPv6MLReport2, IPv6
from scapy.layers.l2 import ARP
from scapy.packet import Packet, Raw
from testrun import REDIRECT, SHOT

from epic.bpf.dataplane import Endpoint

pytestmark = pytest.mark.root

ENDS = pytest.mark.parametrize("end", [EPIC, NODE], ids=["gateway", "workload"])


@pytest.fixture
def asking(host: Host, families: Families) -> Host:
    """Both ends want checksums."""
    host.run(GATEWAY, hello(families, 50, lane_flags=CHECKSUM))
    host.workload.set_tunnel(workload_tunnel(families.over, checksum=True))
    return host


def header_of(end: str, families: Families) -> Packet:
    return families.request() if end == EPIC else families.reply()


@ENDS
@FAMILIES
def test_a_piece_leaves_with_a_checksum_of_its_own(asking: Host, end: str, families: Families) -> None:
    for transport in (TCP(seq=1000), TCP(seq=2000, flags="PA"), UDP()):
        inner = header_of(end, families) / transport / Raw(b"a piece of it")
        ran = asking.run(end, ETHER / inner)
        assert ran == (REDIRECT, bytes(wrapped(families, inner, to_node=end == EPIC, chksum=None)))


@FAMILIES
def test_a_piece_for_a_mapped_endpoint_leaves_with_the_real_address(asking: Host, families: Families) -> None:
    f = families
    asking.gateway.set_endpoint(f.inside, f.mapped, Endpoint(TUNNEL, real=f.foreign))
    ran = asking.run(EPIC, ETHER / ip(f.inside, f.mapped) / TCP() / b"odd")
    assert ran == (REDIRECT, bytes(wrapped(f, ip(f.inside, f.foreign) / TCP() / b"odd", chksum=None)))


@ENDS
@FAMILIES
def test_what_is_still_a_gso_packet_goes_no_further(asking: Host, end: str, families: Families) -> None:
    asking.program(end).gso(500, 3)
    inner = header_of(end, families) / TCP() / Raw(bytes(1400))
    assert asking.dropped(end, ETHER / inner) == "no_segmenter"


@ENDS
@FAMILIES
def test_a_piece_that_does_not_fit_is_dropped(asking: Host, end: str, families: Families) -> None:
    assert (
        asking.dropped(end, ETHER / header_of(end, families) / TCP() / Raw(bytes(UNDERLAY_MTU))) == "too_big"
    )


@ENDS
@FAMILIES
def test_what_the_kernel_says_on_its_interfaces_goes_nowhere(
    host: Host, end: str, families: Families
) -> None:
    role = end.split(maxsplit=1)[0]
    before = host.state(role)
    for packet in (
        ARP(),
        IPv6(src="::", dst="ff02::16", hlim=1) / ICMPv6MLReport2(),
        ip(families.foreign, families.inside) / UDP(),
        ip(families.endpoint, families.endpoint) / UDP(),
    ):
        assert host.run(end, ETHER / packet).verdict == SHOT
    assert host.state(role) == before
