# SPDX-License-Identifier: Apache-2.0
"""Every reason to drop a packet can be provoked: a list, so that none is left out."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
from frames import (
    ALL,
    ETHER,
    OTHER_TUNNEL,
    STRANGER,
    gue,
    hello,
    ip,
    outer,
    set_traffic_class,
)
from gue_scapy import CHECKSUM
from host import EGRESS, GATEWAY, INSTANCE, WORKLOAD, Host, gateway_tunnel
from scapy.layers.inet import ICMP, TCP, UDP, IPerror, IPOption_NOP, UDPerror
from scapy.layers.l2 import Dot1Q
from scapy.packet import Packet, Raw

from epic.bpf.dataplane import Endpoint
from epic.bpf.tables.drop_reasons import DROP_REASONS

pytestmark = pytest.mark.root

F = ALL[0]
REPLY, REQUEST = F.reply() / TCP() / b"x", F.request() / TCP() / b"x"
LOOPBACK_INDEX = 1


def received(
    inner: Packet | bytes = REPLY, outer_fields: dict[str, object] | None = None, **changes: Any
) -> Packet:
    """At the EPIC node."""
    frame = outer(F.nat, F.epic) / gue(REPLY, **changes) / Raw(bytes(inner))
    for name, value in (outer_fields or {}).items():
        setattr(frame[1], name, value)
    return frame


def at_gateway(packet: Packet) -> Callable[[Host], str | None]:
    return lambda host: host.dropped(GATEWAY, packet)


def from_instance(packet: Packet) -> Callable[[Host], str | None]:
    return lambda host: host.dropped(INSTANCE, ETHER / packet)


def unresolved(host: Host) -> str | None:
    host.gateway.set_tunnel(gateway_tunnel(id=OTHER_TUNNEL))
    host.gateway.set_endpoint(F.inside, F.foreign, Endpoint(OTHER_TUNNEL))
    return host.dropped(INSTANCE, ETHER / ip(F.inside, F.foreign) / UDP())


def without_key(host: Host) -> str | None:
    host.invalidate_keys("gateway")
    return host.dropped(INSTANCE, ETHER / REQUEST)


def to_another_address(host: Host) -> str | None:
    return host.dropped(WORKLOAD, outer(F.epic, F.epic_second) / gue(REQUEST) / REQUEST)


def marked(host: Host) -> str | None:
    frame = received()
    set_traffic_class(frame[1], 3)
    return host.dropped(GATEWAY, frame)


def replayed(host: Host) -> str | None:
    host.run(GATEWAY, hello(F, 70))
    return host.dropped(GATEWAY, hello(F, 70))


def too_many_hellos(host: Host) -> str | None:
    return next((reason for n in range(100, 200) if (reason := host.dropped(GATEWAY, hello(F, n)))), None)


def without_room(host: Host) -> str | None:
    """The kernel cannot wrap a GSO packet of which it does not know the kind."""
    host.program(INSTANCE).gso(100, 3)
    return host.dropped(INSTANCE, ETHER / REQUEST / Raw(bytes(280)))


def without_segmenter(host: Host) -> str | None:
    host.run(GATEWAY, hello(F, 70, lane_flags=CHECKSUM))
    settings = host.map("gateway", "settings")
    before = settings.get(bytes(4))
    settings.set(bytes(4), before[:8] + struct.pack("=I", 0) + before[12:])
    try:
        return without_room(host)
    finally:
        settings.set(bytes(4), before)


def from_elsewhere(host: Host) -> str | None:
    return host.dropped(INSTANCE, ETHER / ip(STRANGER, F.endpoint) / UDP(), LOOPBACK_INDEX)


def too_many_errors(host: Host) -> str | None:
    quoted = IPerror(bytes(F.request(proto=17))[:20]) / UDPerror(sport=1, dport=2)
    error = ETHER / ip(STRANGER, F.inside) / ICMP(type=11) / quoted
    busy = struct.pack("=Q", time.monotonic_ns() + 60 * 10**9)
    host.map("workload", "errors").set(host.slot("workload"), busy)
    reason = host.dropped(EGRESS, error)
    host.allow_errors()
    return reason


def to_inside(host: Host) -> str | None:
    return host.dropped(EGRESS, ETHER / ip(STRANGER, F.inside) / UDP())


def leaving(packet: Packet) -> Callable[[Host], str | None]:
    return lambda host: host.dropped(EGRESS, packet)


PROVOKED: dict[str, Callable[[Host], str | None]] = {
    "instance_unknown": from_elsewhere,
    "instance_protocol": from_instance(Dot1Q(vlan=5) / REQUEST),
    "instance_source": from_instance(ip(STRANGER, F.endpoint) / UDP()),
    "inner_header": from_instance(F.request(ihl=4) / UDP()),
    "inner_length": at_gateway(received(bytes(REPLY) + b"more")),
    "inner_spoofed": at_gateway(outer(F.nat, F.epic) / gue(REQUEST) / REQUEST),
    "endpoint_unknown": from_instance(ip(F.inside, STRANGER) / UDP()),
    "source_not_endpoint": to_inside,
    "tunnel_unknown": at_gateway(received(tunnel=99)),
    "tunnel_unresolved": unresolved,
    "tunnel_address": to_another_address,
    "service_wrong": at_gateway(received(service=99)),
    "tag_wrong": at_gateway(received(tag=bytes(8))),
    "key_missing": without_key,
    "outer_fragment": at_gateway(received(outer_fields={"flags": "MF"})),
    "outer_options": at_gateway(received(outer_fields={"options": [IPOption_NOP()] * 4})),
    "outer_length": at_gateway(received(outer_fields={"len": 999})),
    "truncated": at_gateway(outer(F.nat, F.epic) / Raw(b"short")),
    "gue_version": at_gateway(received(version=1)),
    "gue_header_length": at_gateway(received(hlen=5)),
    "gue_flags": at_gateway(received(flags=1)),
    "gue_protocol": at_gateway(received(proto=47)),
    "control_type": at_gateway(hello(F, 50, proto=1)),
    "control_length": at_gateway(hello(F, 50) / Raw(b"more")),
    "control_replayed": replayed,
    "control_field": at_gateway(hello(F, 50, lanes=9)),
    "too_big": from_instance(F.request() / UDP() / Raw(bytes(1500))),
    "congestion": marked,
    "no_room": without_room,
    "no_segmenter": without_segmenter,
    "outer_source": at_gateway(outer(F.nat, F.epic, sport=1) / gue(REPLY) / REPLY),
    "inside_source": leaving(ETHER / REQUEST),
    "inside_vlan": leaving(ETHER / Dot1Q(vlan=5) / REPLY),
    "error_limit": too_many_errors,
    "hello_limit": too_many_hellos,
}


def test_no_reason_is_left_out() -> None:
    """Those of second chance are in test_chance_taken.py and test_chance.py."""
    chance = {name for name, _ in DROP_REASONS if name.startswith("chance_")}
    assert set(PROVOKED) == {name for name, _ in DROP_REASONS} - chance


@pytest.mark.parametrize("reason", PROVOKED)
def test_the_reason_is_counted(host: Host, reason: str) -> None:
    assert PROVOKED[reason](host) == reason
