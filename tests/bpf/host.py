# SPDX-License-Identifier: Apache-2.0
"""One host for tests of single packets: programs run by BPF_PROG_TEST_RUN, both roles side by side."""

from __future__ import annotations

import ctypes
import socket
import struct
from pathlib import Path
from typing import Any, NamedTuple

from frames import (
    ALL,
    ENDPOINT,
    ENDPOINT6,
    INSIDE,
    INSIDE6,
    INSTANCE_INTERFACE,
    KEY,
    LOCALS,
    OLD_KEY,
    OTHER_INSIDE,
    OTHER_INSIDE6,
    OTHER_INTERFACE,
    OTHER_TUNNEL,
    POD_INTERFACE,
    PUBLIC,
    PUBLIC6,
    SERVICE,
    TUNNEL,
    Address,
    Families,
    hello,
)
from namespaces import Namespace
from scapy.packet import Packet
from testrun import SHOT, Program, Ran, TakenOut

from epic.bpf.dataplane import Dataplane, Endpoint, Peer, Tunnel, TunnelCounters
from epic.bpf.programs import syscalls

GATEWAY, WORKLOAD = "gateway gateway_underlay_ingress", "workload workload_underlay_ingress"
INSTANCE, EGRESS, POD = (
    "gateway instance_ingress",
    "workload workload_underlay_egress",
    "workload pod_ingress",
)
GATEWAY_EGRESS = "gateway gateway_underlay_egress"
GATEWAY_PIECES, WORKLOAD_PIECES = "gateway segment_ingress", "workload segment_ingress"
GATEWAY_XDP, WORKLOAD_XDP = "gateway gateway_underlay_xdp", "workload workload_underlay_xdp"
LANES = range(4)

_VALID_OFFSET = 29  # `valid` in `struct tunnel`
_USED_UNTIL_OFFSET = 24  # `used_until` in `struct peer`
_MAP_INFO_SIZE = 80


class State(NamedTuple):
    """All that a packet may change."""

    peers: tuple[Peer | None, ...]
    counters: TunnelCounters
    drops: dict[str, int]


class Host:
    """A namespace with instances' interfaces and an underlay; `gateway` and `workload` are programmed."""

    def __init__(self, pins: Path, object_file: Path) -> None:
        self.namespace = Namespace(ipv6=True)
        for interface in (INSTANCE_INTERFACE, OTHER_INTERFACE, POD_INTERFACE, "up0"):
            self.namespace.run(f"ip link add {interface} type veth peer name {interface[:13]}-p")
        for address in sorted(map(str, LOCALS)):
            self.namespace.run(f"ip addr add {address}/{128 if ':' in address else 32} dev up0")
        pins.mkdir()
        self._pins = pins
        self.gateway = Dataplane(pins / "gateway", object_file)
        self.workload = Dataplane(pins / "workload", object_file)
        self._planes = {"gateway": self.gateway, "workload": self.workload}
        self._programs: dict[str, Program] = {}
        self._maps: dict[tuple[str, str], Map] = {}
        with self.namespace:
            for plane in self._planes.values():
                plane.load()
            self.gateway.attach_underlay("up0", "gateway")
            self.workload.attach_underlay("up0", "workload")
            self.ifindex = socket.if_nametoindex(INSTANCE_INTERFACE)
            self.underlay, self.pod = socket.if_nametoindex("up0"), socket.if_nametoindex(POD_INTERFACE)
        for role in self._planes:
            for pin in (pins / role).glob("*/programs/*"):
                self._programs[f"{role} {pin.name}"] = Program(pin, self.ifindex)

    def close(self) -> None:
        for program in self._programs.values():
            program.close()
        with self.namespace:
            for plane in self._planes.values():
                plane.unload()
        self.namespace.close()

    def reset(self, over: int = 4) -> None:
        """The tunnel over that family and its endpoints as new, with the far end known on the EPIC side."""
        for program in self._programs.values():
            program.gso(0, 0)
        with self.namespace:
            for plane in self._planes.values():
                for id_ in plane.tunnel_ids():
                    plane.delete_tunnel(id_)
                plane.delete_endpoints(list(plane.endpoints()))
                plane.forget_insides()
            self.gateway.attach_instance(INSTANCE_INTERFACE, INSIDE, INSIDE6, (PUBLIC, PUBLIC6))
            self.gateway.set_tunnel(gateway_tunnel())
            self.workload.set_tunnel(workload_tunnel(over))
            for plane in self._planes.values():
                plane.set_endpoint(INSIDE, ENDPOINT, Endpoint(TUNNEL))
                plane.set_endpoint(INSIDE6, ENDPOINT6, Endpoint(TUNNEL))
            self.run(GATEWAY, hello(Families(over, 4), 1))

    def program(self, name: str) -> Program:
        """By role and name."""
        return self._programs[name]

    def pin(self, name: str) -> Path:
        """Where a program is pinned, by role and name."""
        role, program = name.split()
        (found,) = (self._pins / role).glob(f"*/programs/{program}")
        return found

    def map(self, role: str, name: str) -> Map:
        """A map past the door."""
        if (role, name) not in self._maps:
            (pin,) = (self._pins / role).glob(f"*/maps/{name}")
            self._maps[role, name] = Map(pin)
        return self._maps[role, name]

    def invalidate_keys(self, role: str) -> None:
        """Leave the tunnel without keys, which no caller of the dataplane can."""
        held, key = self.map(role, "tunnels"), self.slot(role)
        value = bytearray(held.get(key))
        value[_VALID_OFFSET] = 0
        held.set(key, bytes(value))

    def allow_errors(self) -> None:
        """As if no ICMP error of others had been passed on lately."""
        self.map("workload", "errors").set(self.slot("workload"), bytes(8))

    def allow_hellos(self) -> None:
        """As if the workload node had said nothing lately."""
        held, key = self.map("gateway", "peers"), self.slot("gateway")
        value = held.get(key)
        held.set(key, value[:_USED_UNTIL_OFFSET] + bytes(8) + value[_USED_UNTIL_OFFSET + 8 :])

    def slot(self, role: str) -> bytes:
        """Where the tunnel's data are in the maps that are arrays."""
        return self.map(role, "slots").get(struct.pack("=I", TUNNEL))

    def add_other_tunnel(self) -> None:
        """A tunnel of another instance."""
        inside: dict[str, Any] = {"id": OTHER_TUNNEL, "inside": OTHER_INSIDE, "inside6": OTHER_INSIDE6}
        self.gateway.set_tunnel(gateway_tunnel(interface=OTHER_INTERFACE, **inside))
        self.workload.set_tunnel(workload_tunnel(**inside))

    def forget_other_tunnel(self) -> None:
        """Endpoints that it has stay behind."""
        self.gateway.delete_tunnel(OTHER_TUNNEL)
        self.workload.delete_tunnel(OTHER_TUNNEL)
        self.workload.forget_insides()

    def run(self, program: str, packet: Packet | bytes, ifindex: int | None = None) -> Ran:
        """One packet through one program; `program` is the role and the name."""
        held = self._programs[program]
        held.interface(self.ifindex if ifindex is None else ifindex)
        with self.namespace:
            return held.run(bytes(packet))

    def take_out(self, program: str, packet: Packet | bytes) -> TakenOut:
        """One packet through an XDP program."""
        with self.namespace:
            return self._programs[program].take_out(bytes(packet))

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
        assert before[:2] == after[:2]
        ((reason, times),) = counted.items()
        assert times == 1
        return reason

    def state(self, role: str) -> State:
        """What the packets so far have left."""
        plane = self._planes[role]
        peers = tuple(plane.peer(TUNNEL, lane) for lane in LANES)
        counters = plane.tunnel_counters().get(TUNNEL, TunnelCounters(0, 0, 0, 0))
        return State(peers, counters, plane.drop_counters())


class Map:
    """A pinned map whose value size is asked for."""

    def __init__(self, pin: Path) -> None:
        self._fd = syscalls.open_pinned(pin)
        buffer = ctypes.create_string_buffer(_MAP_INFO_SIZE)
        request = syscalls.attributes("=IIQ", self._fd, len(buffer), syscalls.address(buffer))
        syscalls.bpf(15, request)
        self.value_size = struct.unpack_from("=I", buffer, 12)[0]

    def get(self, key: bytes) -> bytes:
        """The value; it must be there."""
        value = syscalls.lookup(self._fd, key, self.value_size)
        assert value is not None
        return value

    def set(self, key: bytes, value: bytes) -> None:
        """Store."""
        syscalls.update(self._fd, key, value)


def gateway_tunnel(**changes: Any) -> Tunnel:
    """The EPIC node's end."""
    fields: dict[str, Any] = {
        "id": TUNNEL,
        "service": SERVICE,
        "inside": INSIDE,
        "inside6": INSIDE6,
        "local": None,
        "remote": None,
        "remote_port": 6080,
        "underlay": "up0",
        "interface": INSTANCE_INTERFACE,
        "keys": (OLD_KEY, KEY),
        "active": 1,
    }
    return Tunnel(**(fields | changes))


def workload_tunnel(over: int = 4, **changes: Any) -> Tunnel:
    """The workload node's end, over that family."""
    families = next(each for each in ALL if each.over == over)
    ends: dict[str, Address | None] = {"local": families.node, "remote": families.epic, "interface": None}
    return gateway_tunnel(**(ends | changes))
