"""One host for tests of single packets: programs run by BPF_PROG_TEST_RUN, both roles side by side."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, NamedTuple

from gue_scapy import GUE, HELLO
from namespaces import Namespace
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from epic.bpf import records, syscalls, wire
from epic.bpf.dataplane import Dataplane, Peer, Tunnel, TunnelCounters
from epic.bpf.maps import Maps

_PROG_TEST_RUN = 10
_SK_BUFF_SIZE = 192
_IFINDEX_OFFSET = 40

PASS, SHOT, REDIRECT = -1, 2, 7

INSIDE, PUBLIC, ENDPOINT = map(IPv4Address, ("100.64.0.1", "203.0.113.1", "192.168.50.11"))
EPIC, NODE, NAT = map(IPv4Address, ("172.30.2.2", "192.168.50.11", "172.30.2.1"))
NAT_PORT = 33333
TUNNEL, SERVICE = 7, 3
OLD_KEY, KEY = bytes(range(16)), bytes(range(16, 32))
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
INSTANCE_INTERFACE = "epg64400001"


class Ran(NamedTuple):
    """What a program did to a packet."""

    verdict: int
    packet: bytes


class State(NamedTuple):
    """All that a packet may change."""

    peer: Peer | None
    counters: TunnelCounters
    drops: dict[str, int]


class Host:
    """A namespace with an instance's interface and an underlay; `gateway` and `workload` are programmed."""

    def __init__(self, pins: Path, object_file: Path) -> None:
        self.namespace = Namespace()
        self.namespace.run(
            f"ip link add {INSTANCE_INTERFACE} type veth peer name peer0",
            "ip link add up0 type veth peer name far0",
            f"ip addr add {EPIC}/24 dev up0",
            f"ip addr add {NODE}/24 dev up0",
        )
        pins.mkdir()
        self._pins = pins
        self.gateway = Dataplane(pins / "gateway", object_file)
        self.workload = Dataplane(pins / "workload", object_file)
        self._planes = {"gateway": self.gateway, "workload": self.workload}
        self._programs: dict[str, int] = {}
        with self.namespace:
            for plane in self._planes.values():
                plane.load()
            self.gateway.attach_underlay("up0", "gateway")
            self.gateway.attach_instance(INSTANCE_INTERFACE, INSIDE, PUBLIC)
            self.workload.attach_underlay("up0", "workload")
            self.ifindex = socket.if_nametoindex(INSTANCE_INTERFACE)
        for role in self._planes:
            for pin in (pins / role).glob("*/programs/*"):
                self._programs[f"{role} {pin.name}"] = syscalls.open_pinned(pin)
        self.reset()

    def close(self) -> None:
        for fd in self._programs.values():
            os.close(fd)
        with self.namespace:
            for plane in self._planes.values():
                plane.unload()
        self.namespace.close()

    def reset(self) -> None:
        """The tunnel and its endpoint as new, with the far end known on the EPIC side."""
        with self.namespace:
            for plane in self._planes.values():
                for id_ in plane.tunnel_ids():
                    plane.delete_tunnel(id_)
                for pair in plane.endpoints():
                    plane.delete_endpoint(*pair)
                plane.set_endpoint(INSIDE, ENDPOINT, TUNNEL)
            self.gateway.attach_instance(INSTANCE_INTERFACE, INSIDE, PUBLIC)
            self.gateway.set_tunnel(gateway_tunnel())
            self.workload.set_tunnel(workload_tunnel())
            self.run("gateway gateway_underlay_ingress", hello(1))

    def invalidate_keys(self, role: str) -> None:
        """Leave the tunnel without keys, which no caller of the dataplane can."""
        (directory,) = (self._pins / role).glob("*/maps")
        maps, key = Maps(directory), records.ID.pack(TUNNEL)
        fields = list(records.TUNNEL.unpack(maps.tunnels.get(key) or b""))
        fields[6] = 0
        maps.tunnels.set(key, records.TUNNEL.pack(*fields))
        maps.close()

    def run(self, program: str, packet: Packet | bytes, ifindex: int | None = None) -> Ran:
        """One packet through one program; `program` is the role and the name."""
        data = bytes(packet)
        held, out = ctypes.create_string_buffer(data, len(data)), ctypes.create_string_buffer(4096)
        context = bytearray(_SK_BUFF_SIZE)
        struct.pack_into("=I", context, _IFINDEX_OFFSET, self.ifindex if ifindex is None else ifindex)
        buffer = ctypes.create_string_buffer(bytes(context), len(context))
        request = syscalls.attributes(
            "=IIIIQQIIIIQQ",
            *(self._programs[program], 0, len(data), len(out)),
            *(syscalls.address(held), syscalls.address(out), 1, 0, len(context), 0),
            *(syscalls.address(buffer), 0),
        )
        syscalls.bpf(_PROG_TEST_RUN, request)
        verdict, _, size = struct.unpack_from("=iII", request, 4)
        return Ran(verdict, out.raw[:size])

    def dropped(self, program: str, packet: Packet | bytes, ifindex: int | None = None) -> str | None:
        """The reason for which the program drops the packet; None when it does not.

        A dropped packet must leave nothing but one count.
        """
        role = program.split(maxsplit=1)[0]
        before = self.state(role)
        ran = self.run(program, packet, ifindex)
        after = self.state(role)
        counted = {name: n - before.drops[name] for name, n in after.drops.items() if n != before.drops[name]}
        if ran.verdict != SHOT:
            assert not counted, f"counted as dropped: {counted}, but the verdict is {ran.verdict}"
            return None
        assert (before.peer, before.counters) == (after.peer, after.counters)
        ((reason, times),) = counted.items()
        assert times == 1
        return reason

    def state(self, role: str) -> State:
        """What the packets so far have left."""
        plane = self._planes[role]
        return State(plane.peer(TUNNEL), plane.tunnel_counters()[TUNNEL], plane.drop_counters())


def gateway_tunnel(**changes: Any) -> Tunnel:
    """The EPIC node's end."""
    fields: dict[str, Any] = {
        "id": TUNNEL,
        "service": SERVICE,
        "inside": INSIDE,
        "local": EPIC,
        "remote": None,
        "remote_port": 6080,
        "underlay": "up0",
        "interface": INSTANCE_INTERFACE,
        "keys": (OLD_KEY, KEY),
        "active": 1,
    }
    return Tunnel(**(fields | changes))


def workload_tunnel(**changes: Any) -> Tunnel:
    """The workload node's end."""
    return gateway_tunnel(**({"local": NODE, "remote": EPIC, "interface": None} | changes))


def gue(inner: Packet, key: bytes = KEY, **changes: Any) -> GUE:
    """The tunnel's header for this inner packet, signed for the fields it has before the changes."""
    packet = IP(bytes(inner))
    tag = wire.data_tag(key, TUNNEL, SERVICE, IPv4Address(packet.src), IPv4Address(packet.dst), packet.proto)
    return GUE(**({"tunnel": TUNNEL, "service": SERVICE, "tag": tag} | changes))


def outer(source: IPv4Address, destination: IPv4Address, port: int = 6080, **changes: Any) -> Packet:
    """The outer headers as the programs write them; `port` is the destination's."""
    ip: dict[str, Any] = {"src": str(source), "dst": str(destination), "flags": "DF", "id": 0, "ttl": 64}
    return ETHER / IP(**(ip | changes)) / UDP(sport=6080, dport=port, chksum=0)


def control(
    source: IPv4Address, destination: IPv4Address, counter: int, kind: int, key: bytes = KEY, **changes: Any
) -> Packet:
    """A control packet, signed with its changes."""
    message = GUE(
        **({"control": 1, "hlen": 0, "proto": kind, "tunnel": TUNNEL, "counter": counter} | changes)
    )
    message.tag = changes.get("tag") or wire.siphash24(key, bytes(message)[:-8])
    return ETHER / IP(src=str(source), dst=str(destination)) / UDP(sport=NAT_PORT, dport=6080) / message


def hello(counter: int, key: bytes = KEY, **changes: Any) -> Packet:
    """A hello as it reaches the EPIC node."""
    return control(NAT, EPIC, counter, HELLO, key, **changes)
