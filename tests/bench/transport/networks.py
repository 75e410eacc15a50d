# SPDX-License-Identifier: Apache-2.0
"""The networks that are compared: proxy -- epic -- workload -- pod, one set of namespaces for each."""

from __future__ import annotations

import socket
import subprocess
import time
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from namespaces import Namespace, join

from epic.bpf.dataplane import Dataplane, Endpoint, Receive, Route, Tunnel
from epic.bpf.packets import wire
from epic.bpf.programs.loader import Loader

INSIDE, PUBLIC, POD = IPv4Address("100.64.0.1"), IPv4Address("203.0.113.1"), IPv4Address("10.42.0.2")
EPIC, NODE = IPv4Address("172.30.2.1"), IPv4Address("172.30.2.2")
GATEWAY = "169.254.0.1"
PROXY_PORT, POD_PORT = "epg644000010000", "pod0"
TUNNEL, SERVICE, KEY = 7, 3, bytes(range(16))
OVERHEAD = 48
UNDERLAY_MTU, VXLAN_MTU = 1500, 1450


@dataclass(frozen=True)
class Offloads:
    """Features of the interfaces, as `ethtool -K` takes them."""

    pods: str
    underlay: str


DEFAULT = Offloads("tso on gso on gro off", "tso on gso on gro off")
"""What a new veth has: GSO packets cross every interface whole."""
NONE = Offloads("tso off gso off gro off", "tso off gso off gro off")
WIRE = Offloads("tso on gso on gro off", "tso off gso off gro on")
"""Like a wire: segments are cut where they leave the node, and put together where they arrive."""


class Network:
    """The plain one: routers that forward."""

    name = "routed"

    def __init__(self) -> None:
        self.proxy, self.epic, self.workload, self.pod = (Namespace() for _ in range(4))
        join(self.epic, PROXY_PORT, self.proxy, "eth0")
        join(self.epic, "up0", self.workload, "up0")
        join(self.workload, POD_PORT, self.pod, "eth0")
        self._end(self.proxy, self.epic, INSIDE, PROXY_PORT)
        self._end(self.pod, self.workload, POD, POD_PORT)
        self.epic.run(f"ip addr add {EPIC}/24 dev up0")
        self.workload.run(f"ip addr add {NODE}/24 dev up0")
        self._cross()
        for namespace in (self.proxy, self.epic, self.workload, self.pod):
            receive_on_first_processor(namespace)

    def close(self) -> None:
        for namespace in (self.proxy, self.epic, self.workload, self.pod):
            namespace.close()

    def offload(self, features: Offloads) -> None:
        """Set the features of all interfaces."""
        for namespace in (self.proxy, self.pod):
            namespace.run(f"ethtool -K eth0 {features.pods}")
        for namespace, port in ((self.epic, PROXY_PORT), (self.workload, POD_PORT)):
            namespace.run(f"ethtool -K up0 {features.underlay}", f"ethtool -K {port} {features.pods}")

    def _end(self, end: Namespace, router: Namespace, address: IPv4Address, port: str) -> None:
        end.run(f"ip addr add {address}/32 dev eth0", f"ip route add default via {GATEWAY} dev eth0 onlink")
        router.run(f"ip addr add {GATEWAY}/32 dev {port}", f"ip route add {address} dev {port}")
        router.sysctl("ipv4/ip_forward", 1)

    def _cross(self) -> None:
        self.epic.run(f"ip route add {POD} via {NODE}")
        self.workload.run(f"ip route add {INSIDE} via {EPIC}")


class VxlanNetwork(Network):
    """The kernel's VXLAN, with routes into it."""

    name = "vxlan"

    def _cross(self) -> None:
        ends = ((self.epic, EPIC, NODE, POD, "10.9.0.1", "10.9.0.2"),)
        ends += ((self.workload, NODE, EPIC, INSIDE, "10.9.0.2", "10.9.0.1"),)
        for router, local, remote, target, own, hop in ends:
            router.run(
                f"ip link add vx0 type vxlan id 42 dev up0 local {local} remote {remote} dstport 4789",
                f"ip link set vx0 mtu {VXLAN_MTU} up",
                f"ip addr add {own}/30 dev vx0",
                f"ip route add {target} via {hop} dev vx0",
            )
        for end in (self.proxy, self.pod):
            end.run(f"ip link set eth0 mtu {VXLAN_MTU}")


def hello(epic: Dataplane, tunnel: int, key: bytes) -> bytes:
    """What a workload node says in a tunnel to an EPIC node."""
    generation = epic.generation(tunnel)
    return wire.encode(wire.Control(wire.Kind.HELLO, tunnel, time.time_ns(), 0, generation=generation), key)


class GueNetwork(Network):
    """EPIC's tunnel as the agents set it up; the workload node's stack delivers."""

    name = "gue"
    receive: Receive = "tc"
    pods = False

    def __init__(self, pins: Path, object_file: Path) -> None:
        self._pins, self._object_file = pins, object_file
        self.gateway = Dataplane(self._place("epic"), object_file)
        self.node = Dataplane(self._place("node"), object_file)
        super().__init__()

    def close(self) -> None:
        with self.epic:
            self.gateway.unload()
        with self.workload:
            self.node.unload()
        super().close()

    def pin(self, end: str, program: str) -> Path:
        """Where a program is pinned; `end` is `epic` or `node`."""
        return Loader(self._place(end), self._object_file).directory / "programs" / program

    def _place(self, end: str) -> Path:
        return self._pins / f"{self.name}-{end}"

    def _cross(self) -> None:
        mtu = UNDERLAY_MTU - OVERHEAD
        self.proxy.run(f"ip link set eth0 mtu {mtu}")
        # The programs send packets for endpoints themselves; the route is what another way would take.
        self.workload.run(f"ip route add {INSIDE} via {EPIC} dev up0 mtu {mtu}")
        with self.epic:
            self.gateway.load()
            self.gateway.attach_underlay("up0", "gateway", self.receive)
            self.gateway.attach_instance(PROXY_PORT, INSIDE, None, (PUBLIC,))
            self.gateway.set_tunnel(_tunnel(None, NODE, PROXY_PORT))
            self.gateway.set_endpoint(INSIDE, POD, Endpoint(TUNNEL))
        with self.workload:
            self.node.load()
            self.node.attach_underlay("up0", "workload", self.receive)
            self.node.set_tunnel(_tunnel(NODE, EPIC, None))
            self.node.set_endpoint(INSIDE, POD, Endpoint(TUNNEL, interface=POD_PORT if self.pods else None))
            if self.pods:
                self.node.attach_pod(POD_PORT)
            self._say_hello()

    def _say_hello(self) -> None:
        """So that the EPIC node knows where the workload node is."""
        packet = hello(self.gateway, TUNNEL, KEY)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
            channel.bind((str(NODE), 6080))
            for _ in range(3):
                channel.sendto(packet, (str(EPIC), 6080))


class PodsNetwork(GueNetwork):
    """The same, delivered into the pod's interface, past the workload node's stack."""

    name = "gue-pods"
    pods = True


class XdpNetwork(PodsNetwork):
    """The same, with packets taken out of the tunnel before the kernel merges them."""

    name = "gue-xdp"
    receive: Receive = "xdp"


def _tunnel(local: IPv4Address | None, remote: IPv4Address, interface: str | None) -> Tunnel:
    return Tunnel(
        id=TUNNEL,
        service=SERVICE,
        inside=INSIDE,
        inside6=None,
        local=local,
        remote=remote,
        remote_port=6080,
        underlay="up0",
        interface=interface,
        keys=(None, KEY),
        active=1,
        route=Route(remote, "up0", None),
    )


def receive_on_first_processor(namespace: Namespace) -> None:
    """Set RPS: without it a flow's packets run on both processors and overtake each other on a veth."""
    script = (
        "mount -t sysfs sysfs /sys; "
        "for f in /sys/class/net/[!l]*/queues/rx-*/rps_cpus; do echo 1 >$f || exit 1; done"
    )
    with namespace:
        subprocess.run(["unshare", "-m", "sh", "-c", script], check=True)
