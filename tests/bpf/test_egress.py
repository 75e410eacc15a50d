# SPDX-License-Identifier: Apache-2.0
"""What a workload node sends: replies to inside addresses into the tunnel, all else as it was.

The same holds for the stack's exit (egress) and a pod's own interface (pod), but for the answer to what is
too big.
"""

from __future__ import annotations

import pytest
from frames import (
    ETHER,
    FAMILIES,
    OLD_KEY,
    OTHER_TUNNEL,
    TUNNEL,
    Families,
    ip,
    wrapped,
)
from host import EGRESS, POD, Host, workload_tunnel
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6ND_NS,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP
from scapy.packet import Packet, Raw
from testrun import PASS, REDIRECT

from epic.bpf.dataplane import Endpoint

pytestmark = pytest.mark.root

EXITS = pytest.mark.parametrize("exit_", [EGRESS, POD], ids=["stack", "pod"])


def replies(f: Families) -> dict[str, Packet]:
    return {
        "tcp": f.reply() / TCP(flags="SA"),
        "udp": f.reply() / UDP() / b"reply",
        "echo": f.reply() / (ICMP(type=0) if f.inner == 4 else ICMPv6EchoReply()),
        "fragment": (
            f.reply(frag=9, proto=6) / Raw(bytes(70))
            if f.inner == 4
            else f.reply() / IPv6ExtHdrFragment(offset=9, nh=6) / Raw(bytes(70))
        ),
    }


@EXITS
@FAMILIES
def test_a_reply_is_encapsulated(host: Host, exit_: str, families: Families) -> None:
    total = 0
    for name, inner in replies(families).items():
        ran = host.run(exit_, ETHER / inner)
        assert ran.packet == bytes(wrapped(families, inner, to_node=False)), name
        assert ran.verdict == REDIRECT
        total += len(inner)
    assert host.state("workload").counters.tx_bytes == total


@EXITS
@FAMILIES
def test_other_traffic_is_left_alone(host: Host, exit_: str, families: Families) -> None:
    f = families
    for packet in (
        ip(f.endpoint, f.foreign) / TCP(),
        ip(f.node, f.epic) / UDP(sport=6080, dport=6080),
        ip("fe80::1", "fe80::2", hlim=255) / ICMPv6ND_NS(),
        ARP(),
    ):
        assert host.dropped(exit_, ETHER / packet) is None, packet.summary()
        assert host.run(exit_, ETHER / packet) == (PASS, bytes(ETHER / packet)), packet.summary()


@EXITS
@FAMILIES
def test_to_an_inside_address_nothing_leaves_in_the_clear(host: Host, exit_: str, families: Families) -> None:
    f = families
    cases = {
        "stranger": (ip(f.foreign, f.inside) / TCP(), "source_not_endpoint"),
        "an inside address": (ip(f.inside, f.inside) / TCP(), "source_not_endpoint"),
        "version": (f.reply(version=3) / TCP(), "inner_header"),
        "cut off": (
            f.reply(**({"len": 99} if f.inner == 4 else {"plen": 99})) / UDP() / Raw(bytes(20)),
            "inner_header",
        ),
        "stranger's echo": (
            ip(f.foreign, f.inside) / (ICMP(type=0) if f.inner == 4 else ICMPv6EchoReply()),
            "source_not_endpoint",
        ),
    }
    for name, (packet, reason) in cases.items():
        assert host.dropped(exit_, ETHER / packet) == reason, name


@FAMILIES
def test_what_does_not_fit_is_dropped_behind_the_stack(host: Host, families: Families) -> None:
    length = families.largest - families.header - 8
    assert host.run(EGRESS, ETHER / families.reply() / UDP() / Raw(bytes(length))).verdict == REDIRECT
    too_long = ETHER / families.reply() / UDP() / Raw(bytes(length + 1))
    assert host.dropped(EGRESS, too_long) == "too_big"


@EXITS
@FAMILIES
def test_an_endpoint_without_its_tunnel_is_dropped(host: Host, exit_: str, families: Families) -> None:
    host.add_other_tunnel()
    host.workload.set_endpoint(families.inside, families.endpoint, Endpoint(OTHER_TUNNEL))
    host.forget_other_tunnel()
    assert host.dropped(exit_, ETHER / families.reply() / TCP()) == "tunnel_unknown"
    host.workload.delete_endpoint(families.inside, families.endpoint)
    assert host.dropped(exit_, ETHER / families.reply() / TCP()) == "source_not_endpoint"


@EXITS
@FAMILIES
def test_without_a_key_nothing_leaves(host: Host, exit_: str, families: Families) -> None:
    host.invalidate_keys("workload")
    assert host.dropped(exit_, ETHER / families.reply() / TCP()) == "key_missing"


@EXITS
@FAMILIES
def test_without_the_far_ends_address_nothing_leaves(host: Host, exit_: str, families: Families) -> None:
    host.workload.set_tunnel(workload_tunnel(families.over, remote=None))
    assert host.dropped(exit_, ETHER / families.reply() / TCP()) == "tunnel_unresolved"


@EXITS
@FAMILIES
def test_a_deleted_tunnel_leaves_its_inside_addresses_to_others_when_nobody_repeats_replies_any_more(
    host: Host, exit_: str, families: Families
) -> None:
    host.workload.delete_endpoint(families.inside, families.endpoint)
    host.workload.delete_tunnel(TUNNEL)
    packet = ETHER / families.reply() / TCP()
    assert host.dropped(exit_, packet) == "source_not_endpoint"
    host.workload.forget_insides()
    assert host.run(exit_, packet) == (PASS, bytes(packet))


@EXITS
@FAMILIES
def test_an_inside_address_that_a_tunnel_has_again_is_not_forgotten(
    host: Host, exit_: str, families: Families
) -> None:
    host.workload.delete_endpoint(families.inside, families.endpoint)
    host.workload.delete_tunnel(TUNNEL)
    host.workload.set_tunnel(workload_tunnel(families.over, id=OTHER_TUNNEL))
    host.workload.forget_insides()
    assert host.dropped(exit_, ETHER / families.reply() / TCP()) == "source_not_endpoint"
    host.workload.set_endpoint(families.inside, families.endpoint, Endpoint(OTHER_TUNNEL))
    assert host.run(exit_, ETHER / families.reply() / TCP()).verdict == REDIRECT


@EXITS
@FAMILIES
def test_a_tunnel_that_took_over_an_inside_address_keeps_it(
    host: Host, exit_: str, families: Families
) -> None:
    host.workload.set_tunnel(workload_tunnel(families.over, id=OTHER_TUNNEL))
    host.workload.delete_tunnel(TUNNEL)
    assert host.workload.tunnel_ids() == {OTHER_TUNNEL}
    host.workload.set_endpoint(families.inside, families.endpoint, Endpoint(OTHER_TUNNEL))
    assert host.run(exit_, ETHER / families.reply() / TCP()).verdict == REDIRECT


@EXITS
@FAMILIES
def test_the_declared_address_and_key_may_change(host: Host, exit_: str, families: Families) -> None:
    changed = workload_tunnel(families.over, remote=families.epic_second, remote_port=7000, active=0)
    host.workload.set_tunnel(changed)
    inner = families.reply() / UDP()
    frame = wrapped(families, inner, to_node=False, key=OLD_KEY, port=7000)
    frame[1].dst = str(families.epic_second)
    assert host.run(exit_, ETHER / inner).packet == bytes(frame)


@EXITS
@FAMILIES
def test_the_own_address_may_change(host: Host, exit_: str, families: Families) -> None:
    host.workload.set_tunnel(workload_tunnel(families.over, local=families.epic_second))
    inner = families.reply() / UDP()
    frame = wrapped(families, inner, to_node=False)
    frame[1].src = str(families.epic_second)
    assert host.run(exit_, ETHER / inner).packet == bytes(frame)
