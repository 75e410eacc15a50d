# SPDX-License-Identifier: Apache-2.0
"""instance -- epic -- nat -- node: the smallest network with a tunnel in it, and variants."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from frames import GENERATION
from namespaces import Namespace, eventually, join

from epic.bpf.dataplane import Dataplane, Endpoint, Pair, Receive, Tunnel
from epic.bpf.packets import wire

Address = IPv4Address | IPv6Address

INSIDE, PUBLIC = IPv4Address("100.64.0.1"), IPv4Address("203.0.113.1")
INSIDE6 = IPv6Address("fd65:7069:6300::6440:1")
EPIC, NAT_OUTER, NAT_INNER, NODE = map(
    IPv4Address, ("172.30.2.2", "172.30.2.1", "192.168.50.1", "192.168.50.11")
)
EPIC6, NODE6 = IPv6Address("2001:db8:2::2"), IPv6Address("2001:db8:50::11")
INSTANCE_INTERFACE = "epg644000010000"
TUNNEL, SERVICE, KEY = 7, 3, bytes(range(16))
GATEWAY_OF_INSTANCE6 = "fe80::1"


@dataclass(frozen=True)
class Plan:
    """What is between the nodes."""

    over: int = 4
    """Version of IP between them."""
    six: bool = False
    """IPv6 inside."""
    nats: int = 1
    links: int = 1
    """Between the EPIC node and what comes next, each with addresses of its own."""
    receive: Receive = "tc"

    @property
    def epic(self) -> Address:
        return EPIC if self.over == 4 else EPIC6

    @property
    def node(self) -> Address:
        return NODE if self.over == 4 else NODE6

    @property
    def overhead(self) -> int:
        return 48 if self.over == 4 else 68


class Network:
    """The namespaces, with both dataplanes loaded and nothing programmed."""

    def __init__(self, pins: Path, object_file: Path, plan: Plan = Plan()) -> None:
        self.plan = plan
        six = plan.six or plan.over == 6
        self.instance, self.epic, self.nat, self.node, self.second = (Namespace(six) for _ in range(5))
        self._wire()
        self._pins, self.object_file = pins, object_file
        self.gateway = Dataplane(pins / "gateway", object_file)
        self.workload = Dataplane(pins / "workload", object_file)
        with self.epic:
            self.gateway.load()
            for link in range(plan.links):
                self.gateway.attach_underlay(f"up{link}", "gateway", plan.receive)
            self.gateway.attach_instance(INSTANCE_INTERFACE, INSIDE, INSIDE6, (PUBLIC,))
        with self.node:
            self.workload.load()
            self.workload.attach_underlay("up0", "workload", plan.receive)

    def close(self) -> None:
        with self.epic:
            self.gateway.unload()
        with self.node:
            self.workload.unload()
        for namespace in (self.instance, self.epic, self.nat, self.node, self.second):
            namespace.close()

    def reload(self, object_file: Path) -> None:
        """What a restart of both agents with other programs does."""
        self.gateway = Dataplane(self._pins / "gateway", object_file)
        self.workload = Dataplane(self._pins / "workload", object_file)
        with self.epic:
            self.gateway.load()
        with self.node:
            self.workload.load()

    def _wire(self) -> None:
        # The kernel's own multicasts would be counted as dropped.
        self.instance.nft(
            """table ip6 quiet {
                 chain out { type filter hook output priority filter;
                             icmpv6 type { mld2-listener-report, mld-listener-report } drop; }
               }"""
        )
        join(self.epic, INSTANCE_INTERFACE, self.instance, "eth0")
        for link in range(self.plan.links):
            join(self.epic, f"up{link}", self.nat, "out" if link == 0 else f"out{link}")
        last = self.nat
        if self.plan.nats == 2:
            join(self.nat, "in", self.second, "out")
            last = self.second
        join(last, "in", self.node, "up0")
        self._wire_instance()
        for link in range(self.plan.links):
            self.epic.run(f"ip addr add 172.30.{2 + link}.2/24 dev up{link}")
            self.nat.run(f"ip addr add 172.30.{2 + link}.1/24 dev {'out' if link == 0 else f'out{link}'}")
        last.run(f"ip addr add {NAT_INNER}/24 dev in")
        self.node.run(f"ip addr add {NODE}/24 dev up0", f"ip route add default via {NAT_INNER}")
        for namespace in (self.epic, self.nat, self.second):
            namespace.sysctl("ipv4/ip_forward", 1)
        if self.plan.over == 6 or self.plan.six:
            self._wire6()
        self._translate()

    def _wire_instance(self) -> None:
        self.instance.run(
            f"ip addr add {INSIDE}/32 dev eth0",
            f"ip addr add {PUBLIC}/32 dev lo",
            f"ip link set eth0 mtu {1500 - self.plan.overhead}",
            "ip route add default via 169.254.0.1 dev eth0 onlink",
        )
        self.epic.run(
            f"ip addr add 169.254.0.1/32 dev {INSTANCE_INTERFACE}",
            f"ip route add {INSIDE} dev {INSTANCE_INTERFACE}",
            f"ip route add {PUBLIC} dev {INSTANCE_INTERFACE}",
        )

    def _wire6(self) -> None:
        for namespace in (self.epic, self.nat):
            namespace.sysctl("ipv6/conf/all/forwarding", 1)
        self.instance.run(
            f"ip addr add {INSIDE6}/128 dev eth0",
            f"ip route add default via {GATEWAY_OF_INSTANCE6} dev eth0",
        )
        self.epic.run(
            f"ip addr add {GATEWAY_OF_INSTANCE6}/64 dev {INSTANCE_INTERFACE}",
            f"ip route add {INSIDE6} dev {INSTANCE_INTERFACE}",
            f"ip addr add {EPIC6}/64 dev up0",
            "ip route add default via 2001:db8:2::1",
        )
        self.nat.run("ip addr add 2001:db8:2::1/64 dev out", "ip addr add 2001:db8:50::1/64 dev in")
        for link in range(1, self.plan.links):
            self.epic.run(f"ip addr add 2001:db8:{2 + link}::2/64 dev up{link}")
            self.nat.run(f"ip addr add 2001:db8:{2 + link}::1/64 dev out{link}")
        self.node.run(f"ip addr add {NODE6}/64 dev up0", "ip route add default via 2001:db8:50::1")

    def _translate(self) -> None:
        if self.plan.nats == 0:
            self.epic.run("ip route add 192.168.50.0/24 via 172.30.2.1")
        if self.plan.nats == 2:
            self.nat.run("ip addr add 10.9.0.1/24 dev in")
            self.second.run("ip addr add 10.9.0.2/24 dev out", "ip route add default via 10.9.0.1")
            translate(self.second)
        if self.plan.nats:
            translate(self.nat)

    def tunnel(self, **changes: object) -> Tunnel:
        """The EPIC node's end."""
        fields = {
            "id": TUNNEL,
            "service": SERVICE,
            "inside": INSIDE,
            "inside6": INSIDE6,
            "local": None,
            "remote": None,
            "remote_port": 6080,
            "underlay": "up0",
            "interface": INSTANCE_INTERFACE,
            "keys": (None, KEY),
            "active": 1,
        }
        return Tunnel(**(fields | changes))  # type: ignore[arg-type]

    def far_tunnel(self, **changes: object) -> Tunnel:
        """The workload node's end."""
        ends = {"local": self.plan.node, "remote": self.plan.epic, "interface": None}
        return self.tunnel(**(ends | changes))

    def program(self, far: Mapping[str, object] | None = None, **near: object) -> None:
        """Both ends of the tunnel, with changes, and its endpoints."""
        endpoints: dict[Pair, Endpoint] = {
            (INSIDE, NODE): Endpoint(TUNNEL),
            (INSIDE6, NODE6): Endpoint(TUNNEL),
        }
        with self.epic:
            self.gateway.set_tunnel(self.tunnel(**near))
            self.gateway.set_endpoints(endpoints)
        with self.node:
            self.workload.set_tunnel(self.far_tunnel(**(far or {})))
            self.workload.set_endpoints(endpoints)

    def connect(self, lanes: int = 1, flags: wire.Flags = wire.NO_FLAGS, to: Address | None = None) -> None:
        """Say hello on all lanes until they are known, and answer."""
        far = to or self.plan.epic
        for lane in range(lanes):
            with udp_socket(self.node, self.plan.node, 6080 + lane) as opened:
                hello(opened, lane=lane, lanes=lanes, flags=flags, to=far)
        assert eventually(lambda: all(self.gateway.peer(TUNNEL, lane) for lane in range(lanes)))
        with udp_socket(self.epic, far, 6080) as answering:
            for lane in range(lanes):
                self._answer(answering, lane, lanes)
        assert eventually(lambda: all(self._is_answered(lane) for lane in range(lanes)))

    def _answer(self, opened: socket.socket, lane: int, lanes: int) -> None:
        """Send what the EPIC node's agent answers."""
        peer = self.gateway.peer(TUNNEL, lane)
        assert peer is not None
        ack = wire.Control(
            *(wire.Kind.HELLO_ACK, TUNNEL, peer.counter, 1, 0, lane, lanes, wire.NO_FLAGS, GENERATION)
        )
        opened.sendto(wire.encode(ack, KEY), (str(peer.address), peer.port))

    def _is_answered(self, lane: int) -> bool:
        peer = self.workload.peer(TUNNEL, lane)
        return peer is not None and bool(peer.counter)

    def dropped(self) -> dict[str, int]:
        """Reasons of both ends that counted."""
        found: dict[str, int] = {}
        for plane in (self.gateway, self.workload):
            for name, count in plane.drop_counters().items():
                if count:
                    found[name] = found.get(name, 0) + count
        return found


def translate(namespace: Namespace) -> None:
    """Masquerade from `in` to `out`, let nothing in unasked."""
    namespace.nft(
        """table ip nat {
             chain post { type nat hook postrouting priority srcnat;
                          oifname "out" masquerade fully-random; }
           }
           table ip filter {
             chain forward { type filter hook forward priority filter; policy drop;
                             iifname "in" accept; ct state established,related accept; }
           }"""
    )


def udp_socket(namespace: Namespace, address: Address, port: int) -> socket.socket:
    """A bound UDP socket of that namespace; reads give up after two seconds."""
    with namespace:
        opened = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    opened.settimeout(2)
    opened.bind((str(address), port))
    return opened


def hello(
    agent: socket.socket,
    key: bytes = KEY,
    counter: int | None = None,
    to: Address = EPIC,
    lane: int = 0,
    lanes: int = 1,
    flags: wire.Flags = wire.NO_FLAGS,
) -> bytes:
    """Send what the workload agent sends."""
    now = time.time_ns()
    control = wire.Control(
        wire.Kind.HELLO, TUNNEL, now if counter is None else counter, now, 0, lane, lanes, flags, GENERATION
    )
    payload = wire.encode(control, key)
    agent.sendto(payload, (str(to), 6080))
    return payload
