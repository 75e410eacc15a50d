# SPDX-License-Identifier: Apache-2.0
"""The addresses of the tests of single packets, and their packets of either family."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from gue_scapy import GUE, HELLO, HELLO_ACK, PORT
from kernel import NEEDS_OTHER_FAMILY
from scapy.layers.inet import IP, UDP, IPerror
from scapy.layers.inet6 import IPerror6, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from epic.bpf.packets.siphash import siphash24

Address = IPv4Address | IPv6Address

INSIDE, PUBLIC = IPv4Address("100.64.0.1"), IPv4Address("203.0.113.1")
INSIDE6 = IPv6Address("fd65:7069:6300::6440:1")
PUBLIC6 = IPv6Address("2001:db8:113::1")
ENDPOINT, ENDPOINT6 = IPv4Address("192.168.50.11"), IPv6Address("fd00:50::11")
MAPPED, MAPPED6 = IPv4Address("240.1.2.3"), IPv6Address("fd65:7069:6301::1203")
STRANGER, STRANGER6 = IPv4Address("198.51.100.77"), IPv6Address("2001:db8:77::77")
NAT_PORT = 33333
TUNNEL, OTHER_TUNNEL, SERVICE = 7, 8, 3
OTHER_INSIDE, OTHER_INSIDE6 = IPv4Address("100.64.0.2"), IPv6Address("fd65:7069:6300::6440:2")
GENERATION = 0x5EED
"""Of all tunnels' counters in the tests."""
OLD_KEY, KEY, WRONG_KEY = bytes(range(16)), bytes(range(16, 32)), bytes(16)
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
INSTANCE_INTERFACE, OTHER_INTERFACE, POD_INTERFACE = "epg644000010000", "epg644000020000", "pod0"
UNDERLAY_MTU = 1500

_EPIC: dict[int, Address] = {4: IPv4Address("172.30.2.2"), 6: IPv6Address("2001:db8:2::2")}
_EPIC_SECOND: dict[int, Address] = {4: IPv4Address("172.30.2.22"), 6: IPv6Address("2001:db8:2::22")}
_NODE: dict[int, Address] = {4: IPv4Address("192.168.50.1"), 6: IPv6Address("2001:db8:50::1")}
_NAT: dict[int, Address] = {4: IPv4Address("172.30.2.1"), 6: IPv6Address("2001:db8:2::1")}
LOCALS = {*_EPIC.values(), *_EPIC_SECOND.values(), *_NODE.values()}


@dataclass(frozen=True)
class Families:
    """One of the four combinations: versions of the outer and the inner IP."""

    over: int
    inner: int

    def __str__(self) -> str:
        return f"{self.inner}in{self.over}"

    @property
    def epic(self) -> Address:
        """The EPIC node on the underlay."""
        return _EPIC[self.over]

    @property
    def epic_second(self) -> Address:
        """Its other underlay address."""
        return _EPIC_SECOND[self.over]

    @property
    def node(self) -> Address:
        """The workload node on the underlay."""
        return _NODE[self.over]

    @property
    def nat(self) -> Address:
        """Where the EPIC node sees the workload node."""
        return _NAT[self.over]

    @property
    def stranger(self) -> Address:
        """Somebody on the underlay."""
        return STRANGER if self.over == 4 else STRANGER6

    @property
    def inside(self) -> Address:
        return INSIDE if self.inner == 4 else INSIDE6

    @property
    def endpoint(self) -> Address:
        return ENDPOINT if self.inner == 4 else ENDPOINT6

    @property
    def mapped(self) -> Address:
        """What Envoy calls an endpoint whose own address is taken."""
        return MAPPED if self.inner == 4 else MAPPED6

    @property
    def foreign(self) -> Address:
        """An inner address that is nobody's."""
        return STRANGER if self.inner == 4 else STRANGER6

    @property
    def overhead(self) -> int:
        return 48 if self.over == 4 else 68

    @property
    def header(self) -> int:
        """Length of the inner IP header."""
        return 20 if self.inner == 4 else 40

    @property
    def outer_end(self) -> int:
        """Where the GUE header begins in a frame."""
        return 14 + (20 if self.over == 4 else 40) + 8

    @property
    def inner_start(self) -> int:
        return self.outer_end + 20

    @property
    def largest(self) -> int:
        """Of inner packets."""
        return UNDERLAY_MTU - self.overhead

    def request(self, **changes: Any) -> Packet:
        """The inner IP header from the instance to the endpoint."""
        return ip(self.inside, self.endpoint, **changes)

    def reply(self, **changes: Any) -> Packet:
        return ip(self.endpoint, self.inside, **changes)


ALL = [Families(over, inner) for over in (4, 6) for inner in (4, 6)]
FAMILIES = pytest.mark.parametrize("families", ALL, ids=str)


def opened(*families: Families) -> pytest.MarkDecorator:
    """Of packets that a filter takes out of the tunnel, which older kernels cannot for all."""
    marked = ((each, NEEDS_OTHER_FAMILY if each.over != each.inner else ()) for each in families)
    return pytest.mark.parametrize(
        "families", [pytest.param(each, marks=marks) for each, marks in marked], ids=str
    )


INNER = pytest.mark.parametrize("families", ALL[:2], ids=str)
OPENED = opened(*ALL)


def ip(source: Address | str, destination: Address | str, **changes: Any) -> Packet:
    """An IP header of the addresses' family."""
    layer = IP if ip_address(str(source)).version == 4 else IPv6
    return layer(**({"src": str(source), "dst": str(destination)} | changes))


def traffic_class(packet: Packet) -> int:
    return int(packet.tos if packet.version == 4 else packet.tc)


def set_traffic_class(packet: Packet, value: int) -> None:
    setattr(packet, "tos" if isinstance(packet, IP) else "tc", value)


def tag(key: bytes, tunnel: int, service: int, inner: bytes) -> bytes:
    """What signs this inner packet."""
    flow = inner[12:20] + inner[9:10] if inner[0] >> 4 == 4 else inner[8:40] + inner[6:7]
    return siphash24(key, struct.pack("!II", tunnel, service) + flow)


def gue(inner: Packet, key: bytes = KEY, **changes: Any) -> GUE:
    """The tunnel's header for this inner packet, signed for the fields it has before the changes."""
    data = bytes(inner)
    fields = {
        "proto": 4 if data[0] >> 4 == 4 else 41,
        "tunnel": TUNNEL,
        "service": SERVICE,
        "tag": tag(key, TUNNEL, SERVICE, data),
    }
    return GUE(**(fields | changes))


def outer(source: Address, destination: Address, port: int = PORT, **changes: Any) -> Packet:
    """The outer headers as the programs write them, or a NAT leaves them; `port` is the destination's."""
    seen = NAT_PORT if source in _NAT.values() else PORT
    udp = {"sport": changes.pop("sport", seen), "dport": port, "chksum": changes.pop("chksum", 0)}
    if source.version == 4:
        fields: dict[str, Any] = {"flags": "DF", "id": 0, "ttl": 64}
        if "tc" in changes:
            changes["tos"] = changes.pop("tc")
    else:
        fields = {"fl": 0, "hlim": 64}
    return ETHER / ip(source, destination, **(fields | changes)) / UDP(**udp)


def wrapped(families: Families, inner: Packet, to_node: bool = True, **changes: Any) -> Packet:
    """The whole frame that a program makes of an inner packet: from the EPIC node, or to it."""
    gue_fields = {name: changes.pop(name) for name in ("key", "tunnel", "service", "tag") if name in changes}
    if to_node:
        head = outer(families.epic, families.nat, changes.pop("port", NAT_PORT), **changes)
    else:
        head = outer(families.node, families.epic, changes.pop("port", PORT), **changes)
    return head / gue(inner, **gue_fields) / inner


def control(
    source: Address, destination: Address, counter: int, kind: int, key: bytes = KEY, **changes: Any
) -> Packet:
    """A control packet, signed with its changes."""
    ports = {"sport": changes.pop("sport", NAT_PORT), "dport": changes.pop("dport", PORT)}
    fields = {"control": 1, "hlen": 0, "proto": kind, "tunnel": TUNNEL, "counter": counter}
    message = GUE(**(fields | changes))
    message.tag = changes.get("tag") or siphash24(key, bytes(message)[:-8])
    return ETHER / ip(source, destination) / UDP(**ports) / message


def hello(families: Families, counter: int, key: bytes = KEY, **changes: Any) -> Packet:
    """A hello as it reaches the EPIC node."""
    fields = {"generation": GENERATION} | changes
    return control(families.nat, families.epic, counter, HELLO, key, **fields)


def acknowledgement(families: Families, counter: int, key: bytes = KEY, **changes: Any) -> Packet:
    """A hello-ack as it reaches the workload node."""
    fields = {"sport": PORT} | changes
    return control(families.epic, families.node, counter, HELLO_ACK, key, **fields)


def recomputed(frame: Packet | bytes) -> bytes:
    """The frame with all checksums computed anew, but for those of a packet that an ICMP error quotes."""
    packet = Ether(bytes(frame))
    layer: Any = packet
    while layer and not isinstance(layer, (IPerror, IPerror6)):
        if "chksum" in layer.fields:
            del layer.chksum
        if "cksum" in layer.fields:
            del layer.cksum
        layer = layer.payload
    return bytes(packet)
