# SPDX-License-Identifier: Apache-2.0
"""Packets for fuzzing: good ones, and what can be made of them cheaply."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

from frames import (
    ALL,
    ENDPOINT,
    ENDPOINT6,
    ETHER,
    GENERATION,
    INSIDE,
    INSIDE6,
    KEY,
    LOCALS,
    MAPPED,
    MAPPED6,
    NAT_PORT,
    OLD_KEY,
    PUBLIC,
    PUBLIC6,
    SERVICE,
    STRANGER,
    STRANGER6,
    TUNNEL,
    Families,
    acknowledgement,
    gue,
    hello,
    ip,
    outer,
    set_traffic_class,
)
from oracle import End, Pair, Side, World
from scapy.layers.inet import ICMP, TCP, UDP, IPerror, UDPerror
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6TimeExceeded,
    IPerror6,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Dot1Q
from scapy.packet import Packet, Raw

COUNT = int(os.environ.get("EPIC_FUZZ_PACKETS", "1000000"))
SEED = os.environ.get("EPIC_FUZZ_SEED", "epic")

REAL, REAL6 = STRANGER, STRANGER6
"""What the workload's network calls the mapped endpoints."""

_INTERESTING = bytes((0, 1, 2, 3, 4, 6, 17, 41, 44, 47, 58, 0x20, 0x40, 0x45, 0x60, 0x7F, 0x80, 0xFE, 0xFF))


def world(role: str, over: int) -> World:
    """What the host of the tests knows in that role."""
    families = next(each for each in ALL if each.over == over)
    insides = {4: INSIDE.packed, 6: INSIDE6.packed}
    if role == "gateway":
        local, far = None, End(families.epic.packed, families.nat.packed, NAT_PORT)
    else:
        local, far = families.node.packed, End(families.node.packed, families.epic.packed, 6080)
    pairs = {(INSIDE.packed, ENDPOINT.packed): Pair(TUNNEL), (INSIDE6.packed, ENDPOINT6.packed): Pair(TUNNEL)}
    if role == "gateway":
        pairs[INSIDE.packed, MAPPED.packed] = Pair(TUNNEL, REAL.packed)
        pairs[INSIDE6.packed, MAPPED6.packed] = Pair(TUNNEL, REAL6.packed)
    seen = {(TUNNEL, 0): families.nat.packed + NAT_PORT.to_bytes(2, "big")} if role == "gateway" else {}
    return World(
        gateway=role == "gateway",
        tunnels={TUNNEL: Side(SERVICE, (KEY, OLD_KEY), insides, local, far)},
        pairs=pairs,
        locals={address.packed for address in LOCALS},
        publics={PUBLIC.packed, PUBLIC6.packed},
        generation=GENERATION,
        seen=seen,
        lanes={TUNNEL: 1},
    )


def inners(families: Families, near: object, far: object) -> list[Packet]:
    """Inner packets of all kinds between two addresses."""
    head = ip(str(near), str(far))
    quoted = ip(str(far), str(near)) / UDP(sport=1, dport=2)
    if families.inner == 4:
        quoted = IPerror(bytes(quoted)[:20]) / UDPerror(sport=1, dport=2)
        return [
            head / TCP() / b"payload",
            ip(str(near), str(far), tos=1) / UDP() / b"payload",
            head / ICMP() / b"ping",
            head / ICMP(type=11) / quoted,
            ip(str(near), str(far), flags="MF", proto=17) / Raw(bytes(24)),
            ip(str(near), str(far), flags="DF") / UDP() / Raw(bytes(1440)),
        ]
    quoted = IPerror6(bytes(quoted)[:40]) / UDPerror(sport=1, dport=2)
    return [
        head / TCP() / b"payload",
        ip(str(near), str(far), tc=2) / UDP() / b"payload",
        head / ICMPv6EchoRequest() / b"ping",
        head / ICMPv6TimeExceeded() / quoted,
        head / IPv6ExtHdrFragment(m=1, nh=17) / Raw(bytes(24)),
        head / UDP() / Raw(bytes(1420)),
    ]


def received(role: str, over: int) -> list[bytes]:
    """Good frames from the underlay."""
    found: list[Packet] = []
    for families in ALL:
        if families.over != over:
            continue
        if role == "gateway":
            head, near = outer(families.nat, families.epic), families.inside
            names = [families.endpoint, families.foreign]
        else:
            head, near, names = outer(families.epic, families.node), families.endpoint, [families.inside]
        for name in names:
            found += [head / gue(inner) / inner for inner in inners(families, name, near)[:-1]]
            inner = inners(families, name, near)[1]
            marked = head.copy()
            set_traffic_class(marked[1], 3)
            found.append(marked / gue(inner) / inner)
        for lane in range(2):
            make = hello if role == "gateway" else acknowledgement
            found.append(make(families, 1 << 40 + lane, lane=lane, lanes=2))
            found.append(make(families, 1 << 40 + lane, lane=lane, lanes=2, generation=0))
    return [bytes(frame) for frame in found]


def sent(role: str) -> list[bytes]:
    """Frames of an instance, or of a workload node."""
    found: list[Packet] = []
    for families in ALL[:2]:
        if role == "gateway":
            for name in (families.endpoint, families.mapped):
                found += [ETHER / inner for inner in inners(families, families.inside, name)]
        else:
            for name in (families.endpoint, families.foreign):
                found += [ETHER / inner for inner in inners(families, name, families.inside)]
            adopted = inners(families, families.endpoint, families.inside)[3]
            adopted.src = str(families.foreign)
            found.append(ETHER / adopted)
        leaving = ip(families.inside, families.foreign) / UDP() / b"clear"
        found += [ETHER / leaving, ETHER / Dot1Q(vlan=5) / leaving]
        found.append(ETHER / Dot1Q(vlan=4) / Dot1Q(vlan=5) / ip(families.endpoint, families.inside) / UDP())
    found += [
        ETHER / ARP(),
        ETHER / ip(PUBLIC, ENDPOINT) / TCP(),
        ETHER / ip(PUBLIC6, ENDPOINT6) / TCP(),
        ETHER / IPv6(src="fe80::1", dst="ff02::1") / ICMPv6ND_NS(),
    ]
    return [bytes(frame) for frame in found]


def mutations(source: random.Random, good: list[bytes], positions: range | None = None) -> Iterator[bytes]:
    """Endless: bits flipped, bytes replaced, cut, lengthened, two mixed, wholly random."""
    number, bits = source.random, source.getrandbits
    count = len(good)
    while True:
        changed = bytearray(good[int(number() * count)])
        how = bits(6)
        if how == 0:
            changed[14:] = source.randbytes(len(changed) - 14)
        elif how == 1:
            other = good[int(number() * count)]
            cut = 14 + int(number() * (min(len(changed), len(other)) - 14))
            changed[cut:] = other[cut:]
        first, last = (positions[0], positions[-1]) if positions else (12, min(len(changed), 150) - 1)
        for _ in range((0, 1, 1, 1, 1, 2, 3, 8)[bits(3)]):
            place = first + int(number() * (last - first + 1))
            if place >= len(changed):
                continue
            if bits(1):
                changed[place] ^= 1 << bits(3)
            elif bits(1):
                changed[place] = bits(8)
            else:
                changed[place] = _INTERESTING[int(number() * len(_INTERESTING))]
        if how == 2:
            del changed[54 + int(number() * len(changed)) :]
        elif how == 3:
            changed += bytes(1 + bits(5))
        yield bytes(changed)


def bound(over: int, inner: int) -> range:
    """Positions that the tag, the lengths and the entries bind: GUE header and inner addresses."""
    start = 42 if over == 4 else 62
    return range(start, start + 20 + (20 if inner == 4 else 40))
