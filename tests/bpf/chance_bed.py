# SPDX-License-Identifier: Apache-2.0
"""One node with an instance and three siblings, for tests of single packets through second chance."""

from __future__ import annotations

import secrets
import socket
import struct
from collections import Counter
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import oracle
from chance_sockets import PORT, Connection, Instance
from frames import ETHER, Address, ip
from namespaces import Namespace
from oracle_chance import DROPPED, REDIRECTED, Outcome
from oracle_chance_flows import Flow, read
from oracle_chance_passing import ASK, Header, wrap
from oracle_chance_state import Chance, Gateway, Numbers
from scapy.layers.inet import ICMP, IPerror, TCPerror
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPerror6
from scapy.packet import Packet
from testrun import Program, Ran

from epic.bpf.dataplane import Dataplane, Sibling, Siblings
from epic.bpf.tables.budgets import account_key
from epic.bpf.tables.maps import Map
from epic.bpf.tables.records import SETTINGS

PUBLICS: dict[int, Address] = {4: IPv4Address("203.0.113.1"), 6: IPv6Address("2001:db8:113::1")}
CLIENTS: dict[int, Address] = {4: IPv4Address("198.51.100.9"), 6: IPv6Address("2001:db8:77::9")}
NODES: dict[int, Address] = {4: IPv4Address("172.30.2.40"), 6: IPv6Address("2001:db8:2::40")}
"""The underlay address of the sibling of index 0; the others' follow."""
OWN, ORDER = 2, (3, 2, 0, 1)
"""Of four siblings: this node's index, and the order in which they are asked."""
OLD, KEY, WRONG = bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48))
PROGRAM = "gateway_underlay_ingress"
FAR = 1 << 30
"""A distance at which numbers are no socket's."""
ALL_GATEWAYS = bytes(16)
"""Whose budget all gateways share."""
ACCOUNTS = {4: 0x1122334455667788, 6: 0x99AABBCCDDEEFF00}
"""The number of the account of each gateway."""
WINDOW = 65535
_OTHER_PORTS, _LATER_PORTS = 20000, 44000
_AT_ONCE = struct.pack("ii", 1, 0)


class Bed:
    """The programs of an EPIC node, loaded once; `reset` makes all else as new."""

    def __init__(self, pins: Path, object_file: Path) -> None:
        self.namespace = Namespace(ipv6=True)
        self.namespace.run("ip link add up0 type veth peer name far0")
        for address in (node(4, OWN), node(6, OWN)):
            suffix = "/24" if address.version == 4 else "/64 nodad"
            self.namespace.run(f"ip addr add {address}{suffix} dev up0")
        self.namespace.run("ip link set far0 up", "ip link set up0 up")
        self.namespace.sysctl("ipv4/ip_forward", 1)
        self.namespace.sysctl("ipv6/conf/all/forwarding", 1)
        with self.namespace:
            self.plane = Dataplane(pins, object_file)
            self.plane.load()
            self.plane.attach_underlay("up0", "gateway")
            self.underlay = socket.if_nametoindex("up0")
        (pin,) = pins.glob(f"*/programs/{PROGRAM}")
        self.program = Program(pin, self.underlay)
        self.instance = Instance(self.namespace, tuple(PUBLICS.values()), tuple(CLIENTS.values()))
        self.over, self.chance = 4, Chance()
        self._kept: list[socket.socket] = []
        self._port = 20000

    def close(self) -> None:
        self.program.close()
        with self.namespace:
            self.plane.unload()
        self.instance.close()
        self.forget()
        self.namespace.close()

    def forget(self) -> None:
        """Leave no socket to later tests."""
        for kept in self._kept:
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            kept.close()
        self._kept.clear()

    def reset(self, over: int = 4, **changes: Any) -> None:
        """Siblings over that family, of which nobody has learned anything; a client's port of its own."""
        self.over, self.chance = over, Chance()
        self._port += 1
        self.forget()
        self.program.gso(0, 0)
        with self.namespace:
            for public in dict(self.plane.siblings()):
                self.plane.delete_siblings(public)
        for inner in PUBLICS:
            self.tell(inner, **changes)
        self.renew_shared_budgets()
        self._forget_owners()

    def leave_ports(self) -> None:
        """From now on use ports that differ in both bytes from those before, whose sockets may be left."""
        self._port = max(self._port, _LATER_PORTS)

    def _forget_owners(self) -> None:
        """Of flows with other ports too, which mutated packets may have: the hash has another key."""
        with self._settings() as settings:
            value = settings.get(bytes(4)) or bytes(SETTINGS.size)
            settings.set(bytes(4), secrets.token_bytes(8) + value[8:])

    def hash_key(self) -> bytes:
        """Of the hash that says where the owner of a flow is kept."""
        with self._settings() as settings:
            return (settings.get(bytes(4)) or b"")[:8] + bytes(8)

    def _settings(self) -> AbstractContextManager[Map]:
        (pin,) = Path(self.plane._loader.directory).glob("maps/settings")
        return closing(Map(pin, 4, SETTINGS.size))

    def spend_budget(self, whose: bytes, until_ns: int) -> None:
        """Packets of unknown flows have used that gateway's share up to then; 0: nothing of it."""
        with self._budgets() as budgets:
            budgets.set(whose, until_ns.to_bytes(8, "little"))

    def renew_shared_budgets(self) -> None:
        """Nothing is used of what all gateways share, nor of what those of an account do."""
        for whose in (ALL_GATEWAYS, *map(account_key, ACCOUNTS.values())):
            self.spend_budget(whose, 0)

    def spent_budget(self, whose: bytes) -> int:
        """Up to when it is used."""
        with self._budgets() as budgets:
            return int.from_bytes(budgets.get(whose) or b"", "little")

    def _budgets(self) -> AbstractContextManager[Map]:
        (pin,) = Path(self.plane._loader.directory).glob("maps/budgets")
        return closing(Map(pin, 16, 8))

    def tell(self, inner: int, **changes: Any) -> None:
        """What the agent tells the programs and the rules; changes are fields of Siblings."""
        fields: dict[str, Any] = {"own": OWN, "netns": self.instance.netns, "keys": (OLD, KEY), "active": 1}
        fields["account"] = ACCOUNTS[inner]
        fields["siblings"] = tuple(Sibling(index, node(self.over, index)) for index in ORDER)
        told = Siblings(**(fields | changes))
        with self.namespace:
            self.plane.set_siblings(PUBLICS[inner], told)
        self.chance.gateways[PUBLICS[inner].packed] = Gateway(
            told.own,
            tuple(each.index for each in told.siblings),
            {s.index for s in told.siblings if s.alive and not s.leaving and s.index != told.own},
            {each.index: each.address.packed for each in told.siblings},
            {slot: key for slot, key in enumerate(told.keys) if key is not None},
            told.active,
            told.netns is not None,
            {each.index: each.joined for each in told.siblings},
        )

    def stranger(self, inner: int, **changes: Any) -> Connection:
        """A connection that the instance here does not have."""
        return replace(Connection(CLIENTS[inner], PUBLICS[inner], self._port, 7000, 9000), **changes)

    def another(self, inner: int) -> Connection:
        """Likewise, besides a connection of the test's that has or had a socket."""
        return self.stranger(inner, client_port=self._port + _OTHER_PORTS)

    def open(self, inner: int, public_port: int = PORT) -> Connection:
        """A connection that it has."""
        opened, accepted = self.instance.open(*self.ends_of(inner), public_port)
        self._kept.append(accepted)
        self.know(opened)
        return opened

    def send(self, opened: Connection, size: int) -> None:
        """The instance sends to the client of the connection opened last, which says nothing of it."""
        self._kept[-1].sendall(bytes(size))
        numbers = self.chance.sockets[flow_of(opened)]
        self.chance.sockets[flow_of(opened)] = replace(numbers, send=(numbers.send + size) % (1 << 32))

    def ends_of(self, inner: int) -> tuple[Address, Address, int]:
        """Client, gateway and a client's port that no other test uses."""
        return CLIENTS[inner], PUBLICS[inner], self._port

    def know(self, opened: Connection) -> None:
        """Tell the rules of a socket."""
        self.chance.sockets[flow_of(opened)] = Numbers(
            opened.sequence, WINDOW, opened.acknowledged, opened.acknowledged
        )

    def run(self, frame: Packet | bytes) -> Ran:
        """One frame from the underlay."""
        with self.namespace:
            return self.program.run(bytes(frame))

    def judge(self, frame: Packet | bytes) -> Outcome:
        """One frame, which must end as the rules say, and be counted so; how it ended."""
        data = bytes(frame)
        before, drops = self.counted(), self.plane.drop_counters()
        self.chance.counted.clear()
        expected = oracle.receive(data, self.world)
        ran = self.run(data)
        assert ran.verdict == expected[0], (data.hex(), ran, expected)
        if ran.verdict != DROPPED:
            assert without_port(ran) == expected[1], data.hex()
        said = self.counted()
        said.subtract(before)
        assert +said == +self.chance.counted, data.hex()
        dropped = {name: n for name, n in self.plane.drop_counters().items() if n != drops[name]}
        assert dropped == ({expected[2]: drops[expected[2]] + 1} if expected[2] else {})
        return expected

    @property
    def world(self) -> oracle.World:
        """For the tunnel's rules: there are no tunnels."""
        own = {node(over, OWN).packed for over in NODES}
        return oracle.World(gateway=True, tunnels={}, pairs={}, locals=own, chance=self.chance)

    def counted(self) -> Counter[str]:
        """Of both gateways together."""
        total: Counter[str] = Counter()
        for counters in dict(self.plane.second_chance_counters()).values():
            total.update(vars(counters))
        return total

    def passed_on(self, packet: Packet, key: bytes = KEY, tos: int = 0, **changes: int) -> bytes:
        """The frame that the sibling of index 1 makes of a client's packet, signed with the changes."""
        gateway = self.chance.gateways[PUBLICS[packet.version].packed]
        fields = {"visited": 0b1010, "origin": 3, "spare": 3, "sender": 1, "flags": ASK}
        header = Header(**(fields | {name: changes[name] for name in changes if name in fields}))
        slot = changes.get("slot", gateway.active)
        sender = changes.get("source", header.sender)
        # The rules sign for whoever is `own`.
        signer = replace(
            gateway, own=sender, keys={slot: key}, active=slot, addresses=_all_addresses(self.over)
        )
        data = bytes(packet)
        shown = read(data, packet.version)
        assert shown is not None and not isinstance(shown, str)
        said = (shown, signer, header)
        link = bytes(ETHER)[:12]
        return wrap(link, data, said, changes.get("receiver", gateway.own), len(data))


def ends(bed: Bed, frame: Packet | bytes) -> tuple[int, str, set[str]]:
    """Verdict, reason, and what was counted, after the rules have agreed."""
    verdict, _, reason = bed.judge(frame)
    return verdict, reason, set(+bed.chance.counted)


def receiver_of(bed: Bed, frame: Packet | bytes) -> int:
    """Index of the sibling that a frame is passed on to."""
    verdict, packet, _ = bed.judge(frame)
    assert verdict == REDIRECTED
    address = packet[30:34] if bed.over == 4 else packet[38:54]
    return next(index for index in range(16) if node(bed.over, index).packed == address)


def _all_addresses(over: int) -> dict[int, bytes]:
    return {index: node(over, index).packed for index in range(16)}


def node(over: int, index: int) -> Address:
    """The underlay address of a sibling's node."""
    return NODES[over] + index


def flow_of(opened: Connection) -> Flow:
    """As the rules know it."""
    ends = (opened.client.packed, opened.public.packed)
    return Flow(*ends, opened.client_port, opened.public_port)


def error_about(opened: Connection, sequence: int | None = None) -> Packet:
    """A router's error about what the instance sent in a connection."""
    said = opened.acknowledged if sequence is None else sequence
    quoted = TCPerror(sport=opened.public_port, dport=opened.client_port, seq=said)
    ends = {"src": str(opened.public), "dst": str(opened.client)}
    if opened.public.version == 4:
        router = IPv4Address("198.51.100.254")
        return ip(router, opened.public) / ICMP(type=3, code=4, nexthopmtu=1400) / IPerror(**ends) / quoted
    router6 = IPv6Address("2001:db8:77::254")
    return ip(router6, opened.public) / ICMPv6PacketTooBig(mtu=1280) / IPerror6(**ends) / quoted


def without_port(ran: Ran) -> bytes:
    """The packet without the source port to a sibling, which the kernel's hash of the flow chooses."""
    if ran.verdict != REDIRECTED:
        return ran.packet
    place = 34 if ran.packet[12:14] == b"\x08\0" else 54
    return ran.packet[:place] + b"\0\0" + ran.packet[place + 2 :]
