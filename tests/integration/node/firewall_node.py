# SPDX-License-Identifier: Apache-2.0
"""An EPIC node with two instances, a container of somebody else's and an upstream, in network namespaces.

There are no tunnel programs: what the firewall refuses, it refuses alone.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from agent_namespaces import Namespace
from firewall_rules import firewall_rules

NODE, OUTSIDE, STRANGER = "172.30.11.2", "172.30.11.1", "172.30.11.77"
NODE6, OUTSIDE6, STRANGER6 = "fd00:11::2", "fd00:11::1", "fd00:11::77"
CONTAINER, BRIDGE = "10.88.0.2", "10.88.0.1"
HTTPS, CLOSED, SSH, API = 443, 4444, 22, 8443
# How long to wait for what is expected, and for what must not come.
PATIENCE, WAIT = 10.0, 0.4

Endpoint = tuple[str, int]


class Instance(NamedTuple):
    """A gateway's instance: its namespace, its link on the node and its addresses."""

    namespace: Namespace
    interface: str
    public: str
    inside: str


def family(address: str) -> socket.AddressFamily:
    """The family of an address in text."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def connect(namespace: Namespace, source: Endpoint, target: Endpoint, wait: float = PATIENCE) -> str:
    """What becomes of a connection: "connected", "refused" or "nothing"."""
    with namespace, closing(socket.socket(family(target[0]), socket.SOCK_STREAM)) as sock:
        # the port may be a listener's
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # at once without TIME_WAIT, so that the next may have the same ports
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.settimeout(wait)
        sock.bind(source)
        try:
            sock.connect(target)
        except ConnectionRefusedError:
            return "refused"
        except OSError:
            return "nothing"
        return "connected"


def unanswered(namespace: Namespace, source: Endpoint, target: Endpoint) -> bool:
    """Whether nobody says anything to a connection."""
    return connect(namespace, source, target, WAIT) == "nothing"


def udp(namespace: Namespace, source: Endpoint, *, transparent: bool = False) -> socket.socket:
    """A datagram socket; a transparent one may have an address that the host has not."""
    with namespace:
        sock = socket.socket(family(source[0]), socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if transparent:
        level, option = (socket.IPPROTO_IP, 19) if ":" not in source[0] else (socket.IPPROTO_IPV6, 75)
        sock.setsockopt(level, option, 1)
    sock.bind(source)
    return sock


def arrives(sender: socket.socket, target: Endpoint, receiver: socket.socket, wait: float = PATIENCE) -> bool:
    """Whether a datagram from one to the other comes in."""
    receiver.settimeout(wait)
    try:
        sender.sendto(b"x", target)
        return receiver.recv(10) == b"x"
    except OSError:
        return False


class FirewallNode:
    """`with` closes the namespaces; servers listen as long as it lasts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.node, self.outside, self.container = Namespace(), Namespace(), Namespace()
        self.a = Instance(Namespace(), "epg64400001aaaa", "203.0.113.10", "100.64.0.1")
        self.b = Instance(Namespace(), "epg64400002bbbb", "203.0.113.11", "100.64.0.2")
        self._listening: list[socket.socket] = []
        self._wire()
        for instance in (self.a, self.b):
            self._add(instance)
        self.listen(self.node, "0.0.0.0", SSH)  # noqa: S104
        self.listen(self.node, "::", SSH)
        self.listen(self.outside, OUTSIDE, API)
        self.listen(self.container, CONTAINER, 80)

    def __enter__(self) -> FirewallNode:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._listening:
            sock.close()
        for namespace in (self.node, self.outside, self.container, self.a.namespace, self.b.namespace):
            namespace.close()

    def _wire(self) -> None:
        self.node.sysctl("ip_forward", 1)
        with self.node:
            Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1", encoding="ascii")
        for namespace in (self.node, self.outside, self.container, self.a.namespace, self.b.namespace):
            with namespace:
                # their link addresses are good at once
                Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0", encoding="ascii")
        self.node.veth("up0", self.outside, "up0")
        self.node.veth("br0", self.container, "eth0")
        self.node.run(
            *(f"ip address add {NODE}/24 dev up0", f"ip address add {NODE6}/64 dev up0 nodad"),
            *(f"ip address add {BRIDGE}/24 dev br0", "ip address add fd00:88::1/64 dev br0 nodad"),
            "ip rule add pref 100 lookup 200",
        )
        for address in (f"{OUTSIDE}/24", f"{STRANGER}/24"):
            self.outside.run(f"ip address add {address} dev up0")
        for address in (f"{OUTSIDE6}/64", f"{STRANGER6}/64"):
            self.outside.run(f"ip address add {address} dev up0 nodad")
        self.outside.run(f"ip route add default via {NODE}", f"ip -6 route add default via {NODE6}")
        self.container.run(
            *(f"ip address add {CONTAINER}/24 dev eth0", f"ip route add default via {BRIDGE}"),
            *("ip address add fd00:88::2/64 dev eth0 nodad", "ip -6 route add default via fd00:88::1"),
        )

    def _add(self, instance: Instance) -> None:
        namespace, interface, public, inside = instance
        self.node.veth(interface, namespace, "eth0")
        self.node.run(
            f"ip address add 169.254.0.1/32 dev {interface}",
            f"ip route add {public}/32 dev {interface} proto 50 table 200",
            f"ip route add {inside}/32 dev {interface} proto 50 table 200",
        )
        namespace.run(
            f"ip address add {public}/32 dev lo",
            f"ip address add {inside}/32 dev eth0",
            "ip route add default via 169.254.0.1 dev eth0 onlink",
        )
        for port in (HTTPS, CLOSED):
            self.listen(namespace, public, port)

    def listen(self, namespace: Namespace, address: str, port: int) -> None:
        """Have a server there."""
        with namespace:
            sock = socket.socket(family(address), socket.SOCK_STREAM)
            if family(address) == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((address, port))
            sock.listen()
        self._listening.append(sock)

    def load(self, rules: str | None = None) -> None:
        """What the unit does."""
        path = self.directory / "firewall.nft"
        path.write_text(firewall_rules() if rules is None else rules, encoding="utf-8")
        self.node.run(f"nft --file {path}")

    def open_ports(self) -> None:
        """What the agent does: both gateways have a listener on port 443, TCP and UDP."""
        elements = [
            f"{i.public} . {protocol} . {HTTPS}" for i in (self.a, self.b) for protocol in ("tcp", "udp")
        ]
        self.node.run(f"nft add element inet epic gateway_ports {{ {', '.join(elements)} }}")

    def sniff(self, namespace: Namespace) -> socket.socket:
        """A socket that sees every IP packet which comes in there."""
        with namespace:
            return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))


def sees(sniffer: socket.socket, wanted: Callable[[bytes], bool], wait: float = PATIENCE) -> bool:
    """Whether such an IP packet comes in."""
    end = time.monotonic() + wait
    while (left := end - time.monotonic()) > 0:
        sniffer.settimeout(left)
        try:
            packet, (_, _, kind, _, _) = sniffer.recvfrom(2000)
        except TimeoutError:
            return False
        if kind != 4 and wanted(packet):
            return True
    return False
