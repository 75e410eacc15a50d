# SPDX-License-Identifier: Apache-2.0
"""Nothing from or to an inside address leaves a node without the tunnel, whoever sends it."""

from __future__ import annotations

from pathlib import Path

import pytest
from frames import ETHER, FAMILIES, INSIDE, INSIDE6, INSTANCE_INTERFACE, PUBLIC, Families, ip
from host import EGRESS, GATEWAY_EGRESS, POD, Host, gateway_tunnel
from namespaces import Namespace
from planes import INSTANCE
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q
from scapy.packet import Packet, Raw
from testrun import PASS

from epic.bpf.dataplane import Dataplane
from epic.bpf.tables.maps import Map

pytestmark = pytest.mark.root

EXITS = pytest.mark.parametrize("exit_", [EGRESS, POD], ids=["stack", "pod"])
ALL_EXITS = pytest.mark.parametrize("exit_", [EGRESS, POD, GATEWAY_EGRESS], ids=["stack", "pod", "EPIC node"])


def tagged(packet: Packet, tags: int) -> Packet:
    return {1: ETHER / Dot1Q(vlan=5), 2: ETHER / Dot1AD(vlan=4) / Dot1Q(vlan=5)}[tags] / packet


@ALL_EXITS
@FAMILIES
def test_from_an_inside_address_nothing_leaves(host: Host, exit_: str, families: Families) -> None:
    """It came out of a tunnel for an endpoint that is not here any more, or somebody made it up."""
    f = families
    for packet in (
        ip(f.inside, f.endpoint) / TCP(),
        ip(f.inside, f.foreign) / UDP(),
        ip(f.inside, f.foreign, **({"len": 5} if f.inner == 4 else {"version": 4})) / UDP(),
    ):
        assert host.dropped(exit_, ETHER / packet) == "inside_source", packet.summary()


@ALL_EXITS
@FAMILIES
@pytest.mark.parametrize("tags", [1, 2])
def test_from_an_inside_address_nothing_leaves_in_a_vlan(
    host: Host, exit_: str, families: Families, tags: int
) -> None:
    packet = tagged(ip(families.inside, families.foreign) / UDP(), tags)
    assert host.dropped(exit_, packet) == "inside_source"


@ALL_EXITS
@FAMILIES
@pytest.mark.parametrize("tags", [1, 2])
def test_to_an_inside_address_nothing_leaves_in_a_vlan(
    host: Host, exit_: str, families: Families, tags: int
) -> None:
    packet = tagged(ip(families.endpoint, families.inside) / UDP(), tags)
    assert host.dropped(exit_, packet) == "inside_vlan"


@ALL_EXITS
@FAMILIES
def test_others_may_use_vlans(host: Host, exit_: str, families: Families) -> None:
    f = families
    for packet in (
        tagged(ip(f.endpoint, f.foreign) / UDP(), 1),
        tagged(ip(f.endpoint, f.foreign) / UDP(), 2),
        tagged(ARP(), 1),
        tagged(Raw(b"short"), 2),
        bytes(tagged(ip(f.inside, f.foreign) / UDP(), 1))[:26],
        ETHER / Dot1AD(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3) / ip(f.endpoint, f.foreign) / UDP(),
    ):
        assert host.run(exit_, packet) == (PASS, bytes(packet))


@FAMILIES
def test_an_epic_nodes_own_traffic_is_left_alone(host: Host, families: Families) -> None:
    f = families
    for packet in (
        ip(PUBLIC, f.foreign if f.inner == 4 else "198.51.100.77") / TCP(),
        ip(f.epic, f.node) / UDP(sport=6080, dport=6080),
        ip(f.endpoint, f.foreign) / TCP(),
        ip("fe80::1", "fe80::2", hlim=255) / ICMPv6ND_NS(),
        ARP(),
    ):
        assert host.run(GATEWAY_EGRESS, ETHER / packet) == (PASS, bytes(ETHER / packet)), packet.summary()


def test_an_instances_tunnels_come_and_go_and_its_inside_addresses_stay(host: Host) -> None:
    """Several tunnels of an instance have the same ones."""
    host.add_other_tunnel()
    host.gateway.set_tunnel(gateway_tunnel(id=9))
    host.gateway.delete_tunnel(9)
    for inside in (INSIDE, INSIDE6):
        packet = ETHER / ip(inside, "198.51.100.77" if inside.version == 4 else "2001:db8::9") / UDP()
        assert host.dropped(GATEWAY_EGRESS, packet) == "inside_source"


def guarded(bpffs: Path) -> set[bytes]:
    found: set[bytes] = set()
    for name, size in (("insides", 4), ("insides6", 16)):
        (pin,) = (bpffs / "plane").glob(f"*/maps/{name}")
        opened = Map(pin, size, 4)
        found |= {key for key, _ in opened.items()}
        opened.close()
    return found


def test_inside_addresses_are_guarded_as_long_as_the_instances_interface_is_there(host: Host) -> None:
    packet = ETHER / ip(INSIDE, "198.51.100.77") / UDP()
    with host.namespace:
        host.gateway.detach_instance(INSTANCE_INTERFACE)
    assert host.dropped(GATEWAY_EGRESS, packet) == "inside_source"


def test_inside_addresses_of_interfaces_that_are_gone_are_forgotten(
    plane: Dataplane, namespace: Namespace, bpffs: Path
) -> None:
    plane.attach_instance(INSTANCE, INSIDE, INSIDE6, (PUBLIC,))
    assert guarded(bpffs) == {INSIDE.packed, INSIDE6.packed}
    plane.detach_instance(INSTANCE)
    assert guarded(bpffs) == {INSIDE.packed, INSIDE6.packed}
    namespace.run(f"ip link del {INSTANCE}")
    plane.detach_instance(INSTANCE)
    assert guarded(bpffs) == set()
