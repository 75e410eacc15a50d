# SPDX-License-Identifier: Apache-2.0
"""What passes on an EPIC node, by the rules of the role firewall and real nftables."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from firewall_node import (
    API,
    BRIDGE,
    CLOSED,
    CONTAINER,
    HTTPS,
    NODE,
    OUTSIDE,
    OUTSIDE6,
    PATIENCE,
    SSH,
    STRANGER,
    WAIT,
    Endpoint,
    FirewallNode,
    arrives,
    connect,
    sees,
    udp,
    unanswered,
)
from firewall_rules import firewall_rules

from epic.agent.gateway.desired import Element
from epic.agent.gateway.firewall import commands

CHECK = Path(__file__).parents[3] / "roles/firewall/files/epic-firewall-check.service"
pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[FirewallNode]:
    """A node without a firewall."""
    with FirewallNode(tmp_path) as node:
        yield node


@pytest.fixture
def node(bare: FirewallNode) -> FirewallNode:
    """A node with the firewall, and ports of both gateways open."""
    bare.load()
    bare.open_ports()
    return bare


def test_a_client_reaches_the_ports_of_listeners_and_no_others(node: FirewallNode) -> None:
    client = (OUTSIDE, 0)
    assert connect(node.outside, client, (node.a.public, HTTPS)) == "connected"
    assert unanswered(node.outside, client, (node.a.public, CLOSED))
    assert unanswered(node.outside, client, (node.a.inside, HTTPS))


def test_the_node_itself_is_a_client_like_others(node: FirewallNode) -> None:
    assert connect(node.node, (NODE, 0), (node.a.public, HTTPS)) == "connected"
    assert unanswered(node.node, (NODE, 0), (node.a.public, CLOSED))


def test_a_gateway_answers_ping(node: FirewallNode) -> None:
    node.outside.run(f"ping -c 1 -W 1 {node.a.public}")
    node.node.run(f"ping -c 1 -W 1 {node.a.public}")


@pytest.mark.parametrize("port", [0, HTTPS, CLOSED])
@pytest.mark.parametrize(
    "target",
    [
        ("169.254.0.1", SSH),
        (NODE, SSH),
        (OUTSIDE, API),
        ("203.0.113.11", HTTPS),
        ("203.0.113.11", CLOSED),
        (CONTAINER, 80),
    ],
    ids=["its-gateway", "node", "control-plane", "other-listener", "other-closed-port", "container"],
)
def test_an_instance_opens_no_connection_whatever_its_port(
    node: FirewallNode, target: Endpoint, port: int
) -> None:
    assert unanswered(node.a.namespace, (node.a.public, port), target)


def test_without_the_rules_it_would(bare: FirewallNode) -> None:
    assert connect(bare.a.namespace, (bare.a.public, HTTPS), (NODE, SSH)) == "connected"


def tcp_packet(source: Endpoint, target: Endpoint, flags: int) -> bytes:
    """A TCP packet without data, its IP header included."""
    ports = struct.pack("!HHIIBBHHH", source[1], target[1], 1, 0, 5 << 4, flags, 1024, 0, 0)
    addresses = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
    covered = addresses + struct.pack("!BBH", 0, 6, len(ports)) + ports
    total = sum(struct.unpack(f"!{len(covered) // 2}H", covered))
    total = (total & 0xFFFF) + (total >> 16)
    tcp = ports[:16] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + ports[18:]
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0) + addresses + tcp


@pytest.mark.parametrize("flags", [0x02, 0x03, 0x06, 0x0A, 0xC2], ids=["syn", "fin", "rst", "psh", "ece-cwr"])
def test_no_other_flags_make_a_syn_pass(node: FirewallNode, flags: int) -> None:
    packet = tcp_packet((node.a.public, HTTPS), (OUTSIDE, API), flags)
    with node.a.namespace:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw, node.sniff(node.outside) as sniffer:
        raw.sendto(packet, (OUTSIDE, 0))
        assert not sees(sniffer, lambda seen: seen[12:16] == socket.inet_aton(node.a.public), WAIT)


@pytest.mark.parametrize("target", [(NODE, SSH), (CONTAINER, 80)], ids=["node", "container"])
def test_a_connection_that_a_friend_opens_in_its_name_is_not_its_own(
    node: FirewallNode, target: Endpoint
) -> None:
    """A friend outside sends a SYN from its address; the instance would only have to acknowledge."""
    packet = tcp_packet((node.a.public, HTTPS), target, 0x02)
    with node.outside:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw, node.sniff(node.a.namespace) as sniffer:
        raw.sendto(packet, (target[0], 0))
        assert not sees(sniffer, lambda seen: seen[12:16] == socket.inet_aton(target[0]), WAIT)


def test_a_udp_listener_answers_who_spoke_to_it_and_nobody_else(node: FirewallNode) -> None:
    with (
        udp(node.a.namespace, (node.a.public, HTTPS)) as listener,
        udp(node.outside, (OUTSIDE, 5000)) as client,
        udp(node.outside, (STRANGER, 5000)) as stranger,
        udp(node.outside, (OUTSIDE, 5001)) as other_port,
    ):
        assert not arrives(listener, (OUTSIDE, 5000), client, WAIT), "nobody has spoken to it"
        assert arrives(client, (node.a.public, HTTPS), listener)
        assert arrives(listener, (OUTSIDE, 5000), client)
        assert not arrives(listener, (STRANGER, 5000), stranger, WAIT)
        assert not arrives(listener, (OUTSIDE, 5001), other_port, WAIT)


def test_a_udp_listener_cannot_ask_the_node(node: FirewallNode) -> None:
    with udp(node.a.namespace, (node.a.public, HTTPS)) as listener, udp(node.node, (NODE, 53)) as name_server:
        assert not arrives(listener, (NODE, 53), name_server, WAIT)


def test_what_the_host_forwards_for_others_passes_as_ever(node: FirewallNode) -> None:
    assert connect(node.container, (CONTAINER, 0), (OUTSIDE, API)) == "connected"
    assert connect(node.outside, (OUTSIDE, 0), (CONTAINER, 80)) == "connected"
    with udp(node.container, (CONTAINER, 53)) as server, udp(node.outside, (OUTSIDE, 5000)) as client:
        assert arrives(client, (CONTAINER, 53), server)
        assert arrives(server, (OUTSIDE, 5000), client)


def test_others_rules_are_not_outvoted(node: FirewallNode) -> None:
    node.node.run(
        "nft add table inet site",
        "nft add chain inet site forward { type filter hook forward priority 10 ; policy accept ; }",
        "nft add rule inet site forward ip daddr 203.0.113.10 drop",
    )
    assert unanswered(node.outside, (OUTSIDE, 0), (node.a.public, HTTPS))
    assert connect(node.outside, (OUTSIDE, 0), (node.b.public, HTTPS)) == "connected"


def test_it_tracks_no_connections(node: FirewallNode) -> None:
    with node.node:
        tracked = Path("/proc/net/nf_conntrack")
        count = len(tracked.read_text().splitlines()) if tracked.exists() else 0
    assert connect(node.outside, (OUTSIDE, 0), (node.a.public, HTTPS)) == "connected"
    with node.node:
        assert (len(tracked.read_text().splitlines()) if tracked.exists() else 0) == count == 0


def leaves_in_the_clear(node: FirewallNode, sender: str, inside: str, wait: float) -> bool:
    """Whether a datagram that `sender` sends with the inside source comes out of the node's underlay."""
    namespaces = {"instance": node.a.namespace, "container": node.container, "node": node.node}
    source = ipaddress.ip_address(inside)
    if source.version == 6 and sender == "instance":
        node.a.namespace.run(
            "ip -6 address add fd00:99::2/64 dev eth0 nodad", "ip -6 route add default via fd00:99::1"
        )
        node.node.run(f"ip -6 address add fd00:99::1/64 dev {node.a.interface} nodad")
    target = OUTSIDE if source.version == 4 else OUTSIDE6
    with (
        udp(namespaces[sender], (inside, HTTPS), transparent=True) as sock,
        node.sniff(node.outside) as sniffer,
    ):
        sock.sendto(b"x", (target, 5000))
        return sees(sniffer, lambda packet: source.packed in packet[:40], wait)


INSIDE_SENDERS = [
    (sender, inside)
    for sender in ("instance", "container", "node")
    for inside in ("100.64.0.1", "100.127.255.254", "fd65:7069:6300::6440:1")
]


@pytest.mark.parametrize(("sender", "inside"), INSIDE_SENDERS)
def test_no_packet_with_an_inside_source_leaves_in_the_clear(
    node: FirewallNode, sender: str, inside: str
) -> None:
    with suppress(PermissionError):  # the node is told that it must not
        assert not leaves_in_the_clear(node, sender, inside, WAIT)


@pytest.mark.parametrize(("sender", "inside"), INSIDE_SENDERS)
def test_without_the_rules_it_does(bare: FirewallNode, sender: str, inside: str) -> None:
    assert leaves_in_the_clear(bare, sender, inside, PATIENCE)


def test_an_inside_address_is_reached_by_nobody(node: FirewallNode) -> None:
    for namespace, source in ((node.outside, OUTSIDE), (node.container, CONTAINER), (node.node, NODE)):
        with udp(namespace, (source, 5000)) as sock, node.sniff(node.a.namespace) as sniffer:
            with suppress(PermissionError):  # the node is told that it must not
                sock.sendto(b"x", (node.a.inside, HTTPS))
            assert not sees(sniffer, lambda packet: packet[16:20] == socket.inet_aton(node.a.inside), WAIT)


def test_loading_it_again_changes_nothing_and_keeps_ports_and_clients(node: FirewallNode) -> None:
    with (
        udp(node.a.namespace, (node.a.public, HTTPS)) as listener,
        udp(node.outside, (OUTSIDE, 5000)) as client,
    ):
        assert arrives(client, (node.a.public, HTTPS), listener)
        ports = node.node.run("nft list set inet epic gateway_ports")
        rules = node.node.run("nft --stateless list chain inet epic from_instance")
        node.load()
        assert node.node.run("nft list set inet epic gateway_ports") == ports
        assert node.node.run("nft --stateless list chain inet epic from_instance") == rules
        assert arrives(listener, (OUTSIDE, 5000), client)
    assert connect(node.outside, (OUTSIDE, 0), (node.a.public, HTTPS)) == "connected"


def test_after_a_flush_it_is_loaded_as_at_first(node: FirewallNode) -> None:
    before = node.node.run("nft --stateless list ruleset")
    node.node.run("nft flush ruleset")
    node.load()
    node.open_ports()
    after = node.node.run("nft --stateless list ruleset")
    assert after == before


def test_after_a_flush_the_ports_that_the_agent_keeps_are_open_with_the_rules(
    bare: FirewallNode, tmp_path: Path
) -> None:
    ports = tmp_path / "gateway-ports.nft"
    ports.write_text(commands([Element(IPv4Address(bare.a.public), "tcp", HTTPS)], []))
    rules = firewall_rules().replace("/run/epic/", f"{tmp_path}/")
    for _ in range(2):
        bare.node.run("nft flush ruleset")
        bare.load(rules)
        assert connect(bare.outside, (OUTSIDE, 0), (bare.a.public, HTTPS)) == "connected"
    bare.node.run("nft flush ruleset")
    ports.unlink()
    bare.load(rules)
    assert unanswered(bare.outside, (OUTSIDE, 0), (bare.a.public, HTTPS))


def test_the_look_of_a_host_without_an_agent_loads_what_is_missing_and_nothing_else(
    bare: FirewallNode, tmp_path: Path
) -> None:
    (line,) = [line for line in CHECK.read_text().splitlines() if line.startswith("ExecStart=")]
    bare.load(firewall_rules(gateways=False))
    command = line.removeprefix("ExecStart=").replace(
        "/etc/epic/firewall.nft", str(tmp_path / "firewall.nft")
    )

    def look() -> str:
        return bare.node.run(command)

    before = bare.node.run("nft list ruleset")
    assert look() == ""
    for breach in (
        "flush ruleset",
        "flush table inet epic_management",
        "flush chain inet epic_management input",
    ):
        bare.node.run(f"nft {breach}")
        assert "rules are missing" in look()
        assert bare.node.run("nft list ruleset") == before


def test_the_look_misses_the_gateways_rules_too(bare: FirewallNode, tmp_path: Path) -> None:
    (line,) = [line for line in CHECK.read_text().splitlines() if line.startswith("ExecStart=")]
    bare.load()
    command = line.removeprefix("ExecStart=").replace(
        "/etc/epic/firewall.nft", str(tmp_path / "firewall.nft")
    )
    assert bare.node.run(command) == ""
    for breach in ("delete table inet epic", "flush table inet epic"):
        bare.node.run(f"nft {breach}")
        assert "rules are missing" in bare.node.run(command)
        assert "from_instance" in bare.node.run("nft list chain inet epic forward")


def test_it_takes_the_place_of_rules_that_dropped_all_else(bare: FirewallNode) -> None:
    bare.node.run(
        "nft add table inet epic",
        "nft add chain inet epic forward { type filter hook forward priority filter ; policy drop ; }",
        "nft add rule inet epic forward counter drop",
    )
    assert unanswered(bare.container, (CONTAINER, 0), (OUTSIDE, API))
    bare.load()
    assert connect(bare.container, (CONTAINER, 0), (OUTSIDE, API)) == "connected"


def test_a_host_without_gateways_has_no_rules_for_any(bare: FirewallNode) -> None:
    bare.load(firewall_rules(gateways=False))
    assert bare.node.run("nft list tables").split() == ["table", "inet", "epic_management"]
    assert connect(bare.outside, (OUTSIDE, 0), (NODE, SSH)) == "connected"
    assert connect(bare.container, (CONTAINER, 0), (BRIDGE, SSH)) == "connected"
