"""instance -- epic -- nat -- node: the smallest network in which a request crosses the tunnel."""

from __future__ import annotations

import socket
import time
from ipaddress import IPv4Address
from pathlib import Path

from namespaces import Namespace, join

from epic.bpf import wire
from epic.bpf.dataplane import Dataplane, Endpoint, Tunnel

INSIDE, PUBLIC = IPv4Address("100.64.0.1"), IPv4Address("203.0.113.1")
EPIC, NAT_OUTER, NAT_INNER, NODE = map(
    IPv4Address, ("172.30.2.2", "172.30.2.1", "192.168.50.1", "192.168.50.11")
)
INSTANCE_INTERFACE = "epg64400001"
TUNNEL, SERVICE, KEY = 7, 3, bytes(range(16))


class Network:
    """The namespaces, with both dataplanes loaded and nothing programmed."""

    def __init__(self, pins: Path, object_file: Path) -> None:
        self.instance, self.epic, self.nat, self.node = (Namespace() for _ in range(4))
        self._wire()
        self._pins, self.object_file = pins, object_file
        self.gateway = Dataplane(pins / "gateway", object_file)
        self.workload = Dataplane(pins / "workload", object_file)
        with self.epic:
            self.gateway.load()
            self.gateway.attach_underlay("up0", "gateway")
            self.gateway.attach_instance(INSTANCE_INTERFACE, INSIDE, None, PUBLIC)
        with self.node:
            self.workload.load()
            self.workload.attach_underlay("up0", "workload")

    def close(self) -> None:
        with self.epic:
            self.gateway.unload()
        with self.node:
            self.workload.unload()
        for namespace in (self.instance, self.epic, self.nat, self.node):
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
        join(self.epic, INSTANCE_INTERFACE, self.instance, "eth0")
        join(self.epic, "up0", self.nat, "out")
        join(self.nat, "in", self.node, "up0")
        self.instance.run(
            f"ip addr add {INSIDE}/32 dev eth0",
            f"ip addr add {PUBLIC}/32 dev lo",
            "ip link set eth0 mtu 1452",
            "ip route add default via 169.254.0.1 dev eth0 onlink",
        )
        self.epic.run(
            f"ip addr add 169.254.0.1/32 dev {INSTANCE_INTERFACE}",
            f"ip addr add {EPIC}/24 dev up0",
            f"ip route add {INSIDE} dev {INSTANCE_INTERFACE}",
            f"ip route add {PUBLIC} dev {INSTANCE_INTERFACE}",
        )
        self.nat.run(f"ip addr add {NAT_OUTER}/24 dev out", f"ip addr add {NAT_INNER}/24 dev in")
        self.node.run(f"ip addr add {NODE}/24 dev up0", f"ip route add default via {NAT_INNER}")
        for namespace in (self.epic, self.nat):
            namespace.sysctl("ipv4/ip_forward", 1)
        self.nat.nft(
            """table ip nat {
                 chain post { type nat hook postrouting priority srcnat;
                              oifname "out" masquerade fully-random; }
               }
               table ip filter {
                 chain forward { type filter hook forward priority filter; policy drop;
                                 iifname "in" accept; ct state established,related accept; }
               }"""
        )

    def tunnel(self, **changes: object) -> Tunnel:
        """The EPIC node's end."""
        fields = {
            "id": TUNNEL,
            "service": SERVICE,
            "inside": INSIDE,
            "inside6": None,
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
        return self.tunnel(local=NODE, remote=EPIC, interface=None, **changes)

    def program(self) -> None:
        """Both ends of the tunnel and its endpoint."""
        with self.epic:
            self.gateway.set_tunnel(self.tunnel())
            self.gateway.set_endpoint(INSIDE, NODE, Endpoint(TUNNEL))
        with self.node:
            self.workload.set_tunnel(self.far_tunnel())
            self.workload.set_endpoint(INSIDE, NODE, Endpoint(TUNNEL))


def udp_socket(namespace: Namespace, address: IPv4Address, port: int) -> socket.socket:
    """A bound UDP socket of that namespace; reads give up after two seconds."""
    with namespace:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.settimeout(2)
    opened.bind((str(address), port))
    return opened


def hello(agent: socket.socket, key: bytes = KEY, counter: int | None = None) -> bytes:
    """Send what the workload agent sends."""
    now = time.time_ns()
    control = wire.Control(wire.Kind.HELLO, TUNNEL, now if counter is None else counter, now, 0)
    payload = wire.encode(control, key)
    agent.sendto(payload, (str(EPIC), 6080))
    return payload
