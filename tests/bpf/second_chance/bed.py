# SPDX-License-Identifier: Apache-2.0
"""client -- edge -- router -- four EPIC nodes with an instance each, and a workload node with the backends.

What one kernel hides: the nodes share clocks, processors, and the secrets of SYN cookies and initial sequence
numbers; interfaces are veth pairs, so no packet is cut, merged, checked or spread over queues by hardware.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from frames import GENERATION
from namespaces import Namespace, join
from path_network import udp_socket

from epic.bpf.dataplane import Address, Dataplane, Endpoint, Sibling, Siblings, Tunnel
from epic.bpf.packets import wire
from epic.bpf.tables.maps import Map
from epic.bpf.tables.records import pack_address

PUBLIC, PUBLIC6 = IPv4Address("203.0.113.1"), IPv6Address("2001:db8:ff::1")
CLIENT, CLIENT6 = IPv4Address("10.10.0.2"), IPv6Address("2001:db8:a::2")
BACKEND = IPv4Address("192.168.50.11")
NODES = 4
SERVICE = 3
ACCOUNT = 7
INSTANCE_MTU = 1432
PUBLIC6_MTU = 1432
HASH_OF_PORTS = 1
CONGESTION_CONTROL = "reno"
"""Whatever the machine has chosen: the one that every kernel lets every namespace choose."""


@dataclass(frozen=True)
class Plan:
    """What the bed is like."""

    over: int = 4
    """Version of IP between the nodes."""
    instance_mtu: int = INSTANCE_MTU
    client_mtu: int = 1500
    """Of the link between edge and router, for both directions."""


class Node:
    """An EPIC node with one instance of the gateway."""

    def __init__(self, index: int, plan: Plan, pins: Path, object_file: Path) -> None:
        self.index = index
        self.space, self.instance = Namespace(ipv6=True), Namespace(ipv6=True)
        self.interface = f"epg644000{index + 1:02x}0000"
        self.inside = IPv4Address(f"100.64.0.{index + 1}")
        self.underlay4 = IPv4Address(f"172.30.{index}.2")
        self.underlay6 = IPv6Address(f"2001:db8:30{index}::2")
        self.address: Address = self.underlay4 if plan.over == 4 else self.underlay6
        self.pins = pins / f"node{index}"
        self.plane = Dataplane(self.pins, object_file)
        self._plan = plan

    def wire(self, router: Namespace) -> None:
        """Its links, addresses and routes."""
        join(self.space, "up0", router, f"n{self.index}")
        router.run(
            f"ip addr add 172.30.{self.index}.1/24 dev n{self.index}",
            f"ip addr add 2001:db8:30{self.index}::1/64 dev n{self.index}",
        )
        for version in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            self.space.sysctl(version, 1)
        self.space.run(
            f"ip addr add {self.underlay4}/24 dev up0",
            f"ip addr add {self.underlay6}/64 dev up0",
            f"ip route add default via 172.30.{self.index}.1",
            f"ip route add default via 2001:db8:30{self.index}::1",
        )
        self._wire_instance()

    def _wire_instance(self) -> None:
        self.instance.sysctl("ipv4/tcp_congestion_control", CONGESTION_CONTROL)
        join(self.space, self.interface, self.instance, "eth0")
        self.space.run(f"ip link set {self.interface} address 02:00:00:00:00:01")
        self.instance.run("ip link set eth0 address 02:00:00:00:00:02")
        self.space.run(
            f"ip addr add 169.254.0.1/32 dev {self.interface}",
            f"ip route add {self.inside} dev {self.interface}",
            f"ip route add {PUBLIC} dev {self.interface}",
            f"ip neigh replace {PUBLIC6} lladdr 02:00:00:00:00:02 dev {self.interface} nud permanent",
            f"ip route add {PUBLIC6} dev {self.interface}",
        )
        self.instance.run(
            f"ip link set eth0 mtu {self._plan.instance_mtu}",
            f"ip addr add {PUBLIC}/32 dev lo",
            f"ip addr add {PUBLIC6}/128 dev lo",
            f"ip addr add {self.inside}/32 dev eth0",
            "ip route add default via 169.254.0.1 dev eth0 onlink",
            "ip neigh replace fe80::1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent",
            "ip route add default via fe80::1 dev eth0",
        )

    def open_tunnel(self) -> None:
        """The node's end of that from the instance to the backends; of a new instance once more."""
        with self.space:
            self.plane.attach_instance(self.interface, self.inside, None, (PUBLIC, PUBLIC6))
            self.plane.set_tunnel(_tunnel(self, interface=self.interface))
            self.plane.set_endpoint(self.inside, BACKEND, Endpoint(self.index + 1))

    def make_instance_again(self) -> None:
        """With another namespace; nothing runs in the old one any more."""
        with self.space:
            self.plane.detach_instance(self.interface)
        self.space.run(f"ip link del {self.interface}")
        self.instance.close()
        self.instance = Namespace(ipv6=True)
        self._wire_instance()
        self.open_tunnel()

    @property
    def netns(self) -> int:
        """The id of the instance's namespace, as the node's sees it."""
        (link,) = json.loads(self.space.run(f"ip -j link show {self.interface}"))
        return int(link["link_netnsid"])

    @property
    def sent(self) -> int:
        """Packets by its underlay, however many segments are in them."""
        (link,) = json.loads(self.space.run("ip -s -j link show up0"))
        return int(link["stats64"]["tx"]["packets"])

    def states(self, client_port: int) -> list[str]:
        """Of the instance's connections of the client's from that port."""
        return _states(self.instance, f"dport = :{client_port}")

    def spend_budget(self, public: Address, until_ns: int) -> None:
        """Packets of unknown flows have used the gateway's share there up to then; 0: nothing of it."""
        (pin,) = self.pins.glob("*/maps/budgets")
        with closing(Map(pin, 16, 8)) as budgets:
            budgets.set(pack_address(public), until_ns.to_bytes(8, "little"))

    def connections(self) -> list[str]:
        """The open ones of clients that the instance has."""
        which = f"src {PUBLIC} or src [{PUBLIC6}]"
        return self.instance.run(f"ss -Htn state established {which}").splitlines()

    def abort_clients(self) -> None:
        """End what the instance still has of the clients' connections; on a kernel that can do that."""
        self.instance.run(f"ss -KHt state connected exclude time-wait src {PUBLIC} or src [{PUBLIC6}]")

    def close(self) -> None:
        with self.space:
            self.plane.unload()
        self.instance.close()
        self.space.close()


class Bed:
    """The namespaces, with the tunnels to the backends; nothing is announced, second chance is off."""

    def __init__(self, pins: Path, object_file: Path, plan: Plan = Plan()) -> None:
        pins.mkdir(exist_ok=True)
        self.plan = plan
        self.client, self.edge, self.router, self.workload = (Namespace(ipv6=True) for _ in range(4))
        self.nodes = [Node(index, plan, pins, object_file) for index in range(NODES)]
        self._workload = Dataplane(pins / "workload", object_file)
        self.keys: tuple[bytes | None, bytes | None] = (None, secrets.token_bytes(16))
        self.active = 1
        self._joined: dict[int, int] = {}
        self._lists = 0
        self.wire()
        self._open_tunnels()

    def close(self) -> None:
        with self.workload:
            self._workload.unload()
        for node in self.nodes:
            node.close()
        for namespace in (self.client, self.edge, self.router, self.workload):
            namespace.close()

    def wire(self) -> None:
        """Links, addresses, routes."""
        join(self.client, "eth0", self.edge, "in")
        join(self.edge, "out", self.router, "edge")
        join(self.workload, "up0", self.router, "work")
        for router in (self.edge, self.router):
            router.sysctl("ipv4/ip_forward", 1)
            router.sysctl("ipv6/conf/all/forwarding", 1)
        for version in ("ipv4", "ipv6"):
            self.router.sysctl(f"{version}/fib_multipath_hash_policy", HASH_OF_PORTS)
        # Linux hashes by what the sending socket noted in the buffer, if it comes from the same kernel, and
        # sockets note another value when they send again.
        self.client.sysctl("core/txrehash", 0)
        for end in (self.client, self.workload):
            end.sysctl("ipv4/tcp_congestion_control", CONGESTION_CONTROL)
        self.client.run(
            f"ip addr add {CLIENT}/24 dev eth0",
            f"ip addr add {CLIENT6}/64 dev eth0",
            "ip route add default via 10.10.0.1",
            "ip route add default via 2001:db8:a::1",
        )
        mtu = self.plan.client_mtu
        self.edge.run(
            f"ip link set out mtu {mtu}",
            "ip addr add 10.10.0.1/24 dev in",
            "ip addr add 2001:db8:a::1/64 dev in",
            "ip addr add 10.11.0.2/24 dev out",
            "ip addr add 2001:db8:b::2/64 dev out",
            "ip route add default via 10.11.0.1",
            "ip route add default via 2001:db8:b::1",
        )
        self.router.run(
            f"ip link set edge mtu {mtu}",
            "ip addr add 10.11.0.1/24 dev edge",
            "ip addr add 2001:db8:b::1/64 dev edge",
            "ip route add 10.10.0.0/24 via 10.11.0.2",
            "ip route add 2001:db8:a::/64 via 2001:db8:b::2",
            "ip addr add 192.168.50.1/24 dev work",
        )
        self.workload.run(f"ip addr add {BACKEND}/24 dev up0", "ip route add default via 192.168.50.1")
        for node in self.nodes:
            node.wire(self.router)

    def _open_tunnels(self) -> None:
        """From each instance to the backends."""
        with self.workload:
            self._workload.load()
            self._workload.attach_underlay("up0", "workload")
        for node in self.nodes:
            ends = {"local": BACKEND, "remote": node.underlay4, "interface": None}
            with self.workload:
                self._workload.set_tunnel(_tunnel(node, **ends))
                self._workload.set_endpoint(node.inside, BACKEND, Endpoint(node.index + 1))
            with node.space:
                node.plane.load()
                node.plane.attach_underlay("up0", "gateway")
            node.open_tunnel()
        with udp_socket(self.workload, BACKEND, 6080) as agent:
            for node in self.nodes:
                agent.sendto(_hello(node), (str(node.underlay4), 6080))

    def route(self, hops: Collection[int]) -> None:
        """The router's next hops: of the flows, by their hash."""
        vias = [self._via(index) for index in sorted(hops)]
        self.router.run(
            f"ip route replace {PUBLIC} " + " ".join(four for four, _ in vias),
            f"ip route replace {PUBLIC6} " + " ".join(six for _, six in vias),
        )

    def _via(self, index: int) -> tuple[str, str]:
        return f"nexthop via 172.30.{index}.2", f"nexthop via 2001:db8:30{index}::2"

    def link(
        self,
        members: Sequence[int],
        draining: Collection[int] = (),
        lost: Collection[int] = (),
        leaving: Collection[int] = (),
        late: Collection[int] = (),
    ) -> None:
        """Second chance between these, in this order; all but `late` ones apply it one after the other."""
        self._lists += 1
        staying = [each for each in members if each not in leaving]
        joined = {each: self._joined.get(each, self._lists) for each in members}
        self._joined = {each: joined[each] for each in staying}
        siblings = tuple(
            Sibling(
                index=each,
                address=self.nodes[each].address,
                draining=each in draining,
                alive=each not in lost,
                leaving=each in leaving,
                joined=joined[each],
            )
            for each in members
        )
        for index in members:
            if index not in lost and index not in late:
                self._link_one(index, siblings)

    def _link_one(self, index: int, siblings: tuple[Sibling, ...]) -> None:
        """What one node's agent does."""
        node = self.nodes[index]
        with node.space:
            for public in (PUBLIC, PUBLIC6):
                told = Siblings(index, node.netns, siblings, self.keys, self.active, ACCOUNT)
                node.plane.set_siblings(public, told)

    def client_states(self) -> list[str]:
        """Of the client's connections that are not wholly closed."""
        return [state for state in _states(self.client, "") if state != "TIME-WAIT"]

    def owner(self, client_port: int) -> int:
        """The one node that has the client's connection from that port."""
        (found,) = (node.index for node in self.nodes if "ESTAB" in node.states(client_port))
        return found

    def counted(self, name: str) -> int:
        """That counter of second chance, of all nodes and both addresses."""
        return sum(
            getattr(counters, name)
            for node in self.nodes
            for counters in dict(node.plane.second_chance_counters()).values()
        )

    def unlink(self) -> None:
        """Second chance off everywhere."""
        self.unlink_some(range(NODES))

    def unlink_some(self, indexes: Iterable[int]) -> None:
        """Second chance off at these nodes."""
        for node in (self.nodes[index] for index in indexes):
            with node.space:
                for public in (PUBLIC, PUBLIC6):
                    if public in dict(node.plane.siblings()):
                        node.plane.delete_siblings(public)


def _states(namespace: Namespace, which: str) -> list[str]:
    lines = namespace.run(f"ss -Htan state connected {which}").splitlines()
    return [line.split()[0] for line in lines]


def _tunnel(node: Node, **changes: object) -> Tunnel:
    fields = {
        "id": node.index + 1,
        "service": SERVICE,
        "inside": node.inside,
        "inside6": None,
        "local": None,
        "remote": None,
        "remote_port": 6080,
        "underlay": "up0",
        "interface": None,
        "keys": (None, _key(node)),
        "active": 1,
    }
    return Tunnel(**(fields | changes))  # type: ignore[arg-type]


def _key(node: Node) -> bytes:
    return bytes([node.index]) * 16


def _hello(node: Node) -> bytes:
    hello = wire.Control(wire.Kind.HELLO, node.index + 1, 1, 1, 0, 0, 1, wire.NO_FLAGS, GENERATION)
    return wire.encode(hello, _key(node))
