# SPDX-License-Identifier: Apache-2.0
"""ICMP errors of others to an inside address: passed on as the endpoint's, if they are about our packets."""

from __future__ import annotations

import struct
import time
from typing import Any

import pytest
from frames import ETHER, FAMILIES, OTHER_TUNNEL, Families, ip, wrapped
from host import EGRESS, POD, Host
from scapy.layers.inet import ICMP, TCP, UDP, IPerror, UDPerror
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, ICMPv6TimeExceeded, IPerror6
from scapy.packet import Packet, Raw
from testrun import REDIRECT

from epic.bpf.dataplane import Endpoint

pytestmark = pytest.mark.root

EXITS = pytest.mark.parametrize("exit_", [EGRESS, POD], ids=["stack", "pod"])
BURST = 100


def error_about(f: Families, source: object, quoted: Packet) -> Packet:
    """An ICMP error of `source` about a packet from the inside address."""
    if f.inner == 4:
        return ip(str(source), f.inside) / ICMP(type=11) / quoted
    return ip(str(source), f.inside) / ICMPv6TimeExceeded() / quoted


def quoted_request(f: Families, destination: object, **changes: Any) -> Packet:
    layer = IPerror if f.inner == 4 else IPerror6
    fields: dict[str, Any] = {"proto": 17} if f.inner == 4 else {"nh": 17}
    ends = {"src": str(f.inside), "dst": str(destination)}
    return layer(**(ends | fields | changes)) / UDPerror(sport=1, dport=2)


@EXITS
@FAMILIES
def test_an_error_of_a_router_is_passed_on_as_the_endpoints(
    host: Host, exit_: str, families: Families
) -> None:
    error = error_about(families, families.foreign, quoted_request(families, families.endpoint))
    ran = host.run(exit_, ETHER / error)
    expected = error_about(families, families.endpoint, quoted_request(families, families.endpoint))
    assert ran == (REDIRECT, bytes(wrapped(families, expected, to_node=False)))


@EXITS
@FAMILIES
def test_an_error_about_something_else_is_not_passed_on(host: Host, exit_: str, families: Families) -> None:
    f = families
    about = {
        "no endpoint": quoted_request(f, f.foreign),
        "a stranger's packet": quoted_request(f, f.endpoint, src=str(f.foreign)),
        "the endpoint's own packet": quoted_request(f, f.inside, src=str(f.endpoint)),
        "what is no IP": quoted_request(f, f.endpoint, version=3),
        "the other family": quoted_request(f, f.endpoint, version=10 - f.inner),
        "the beginning of a header": Raw(bytes(quoted_request(f, f.endpoint))[: f.header - 1]),
    }
    if f.inner == 4:
        about["a header that is too short"] = quoted_request(f, f.endpoint, ihl=4)
        about["a packet that is shorter than its header"] = quoted_request(f, f.endpoint, len=19)
    for name, quoted in about.items():
        frame = ETHER / error_about(f, f.foreign, quoted)
        assert host.dropped(exit_, frame) == "source_not_endpoint", name


@EXITS
@FAMILIES
def test_an_error_about_an_endpoint_that_was_removed_is_not_passed_on(
    host: Host, exit_: str, families: Families
) -> None:
    host.workload.delete_endpoint(families.inside, families.endpoint)
    removed = error_about(families, families.foreign, quoted_request(families, families.endpoint))
    assert host.dropped(exit_, ETHER / removed) == "source_not_endpoint"


@FAMILIES
def test_the_endpoints_own_errors_need_no_change(host: Host, families: Families) -> None:
    if families.inner == 4:
        inner = families.reply() / ICMP(type=3, code=3) / quoted_request(families, families.endpoint)
    else:
        inner = families.reply() / ICMPv6DestUnreach() / quoted_request(families, families.endpoint)
    ran = host.run(EGRESS, ETHER / inner)
    assert ran.packet == bytes(wrapped(families, inner, to_node=False))


def outrun(host: Host, frame: Packet) -> int:
    """How many errors pass before there are too many."""
    for passed in range(100 * BURST):
        reason = host.dropped(EGRESS, frame)
        if reason is not None:
            assert reason == "error_limit"
            return passed
    raise AssertionError("there is no limit")


@FAMILIES
def test_a_tunnel_takes_so_many_errors_at_once(host: Host, families: Families) -> None:
    host.allow_errors()
    error = ETHER / error_about(families, families.foreign, quoted_request(families, families.endpoint))
    begun = time.monotonic()
    passed = outrun(host, error)
    # One more is allowed every 10 ms.
    assert BURST <= passed <= BURST + (time.monotonic() - begun) * 100 + 2


def test_the_limit_is_each_tunnels_own_and_not_the_endpoints(host: Host) -> None:
    families = Families(4, 4)
    host.allow_errors()
    host.add_other_tunnel()
    host.workload.set_endpoint(families.inside, families.foreign, Endpoint(OTHER_TUNNEL))
    outrun(host, ETHER / error_about(families, families.epic, quoted_request(families, families.endpoint)))
    other = error_about(families, families.epic, quoted_request(families, families.foreign))
    assert host.run(EGRESS, ETHER / other).verdict == REDIRECT
    own = families.reply() / ICMP(type=3, code=3) / quoted_request(families, families.endpoint)
    assert host.run(EGRESS, ETHER / own).verdict == REDIRECT
    assert host.run(EGRESS, ETHER / families.reply() / TCP()).verdict == REDIRECT


def test_a_tunnel_that_was_quiet_takes_errors_again(host: Host) -> None:
    families = Families(4, 4)
    host.allow_errors()
    error = ETHER / error_about(families, families.foreign, quoted_request(families, families.endpoint))
    outrun(host, error)
    late = struct.pack("=Q", time.monotonic_ns() + 10**9 // 2)
    host.map("workload", "errors").set(host.slot("workload"), late)
    assert outrun(host, error) >= BURST // 2 - 1


def test_a_fragment_is_no_error_that_can_be_passed_on(host: Host) -> None:
    families = Families(4, 4)
    error = error_about(families, families.foreign, quoted_request(families, families.endpoint))
    error.flags = "MF"
    assert host.dropped(EGRESS, ETHER / error) == "source_not_endpoint"


def test_a_packet_that_is_too_big_is_told_of_by_routers_behind_the_node(host: Host) -> None:
    families = Families(4, 6)
    quoted = quoted_request(families, families.endpoint)
    error = ip(families.foreign, families.inside) / ICMPv6PacketTooBig(mtu=1280) / quoted
    assert host.run(EGRESS, ETHER / error).verdict == REDIRECT
    echo = ip(families.foreign, families.inside) / UDP()
    assert host.dropped(EGRESS, ETHER / echo) == "source_not_endpoint"
