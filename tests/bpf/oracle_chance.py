# SPDX-License-Identifier: Apache-2.0
"""The rules of docs/second-chance-packets.md once more, in Python, for single packets and for fuzzing."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import oracle_rewrite

from epic.bpf.siphash import siphash24

NOT_OURS, DROPPED, REDIRECTED = -1, 2, 7
ASK, RETURN, GIVE, FOUND = range(4)
_SLOT, _ANSWER = 4, 8
_REACH = 1 << 24
_TCP, _ICMP, _ICMPV6, _UDP, _FRAGMENT = 6, 1, 58, 17, 44
_EXTENSIONS = (0, 43, 60)
_ETHERTYPE = {4: b"\x08\0", 6: b"\x86\xdd"}
_SYN, _ACK = 2, 16
_MAPPED = bytes(10) + b"\xff\xff"

Outcome = tuple[int, bytes, str]
"""Verdict, packet (of no meaning when dropped; UDP source port 0 when made here), reason."""


class Flow(NamedTuple):
    """Of a connection, addresses packed."""

    client: bytes
    public: bytes
    client_port: int
    public_port: int


@dataclass(frozen=True)
class Numbers:
    """What a socket goes by."""

    receive: int
    window: int
    unacknowledged: int
    send: int


@dataclass
class Gateway:
    """What a node knows of one gateway."""

    own: int
    order: tuple[int, ...]
    candidates: set[int]
    addresses: dict[int, bytes]
    keys: dict[int, bytes]
    active: int


@dataclass
class Chance:
    """What a node knows."""

    gateways: dict[bytes, Gateway] = field(default_factory=dict)
    sockets: dict[Flow, Numbers] = field(default_factory=dict)
    owners: dict[Flow, int] = field(default_factory=dict)
    counted: Counter[str] = field(default_factory=Counter)


class Header(NamedTuple):
    """As it is read."""

    visited: int
    origin: int
    spare: int
    sender: int
    flags: int


class Packet(NamedTuple):
    """A TCP packet, or an ICMP error about one."""

    flow: Flow
    protocol: int
    sequence: int
    acknowledged: int | None
    begins: bool
    error: bool
    shown: int
    """Bytes from the IP header on that show the flow."""


def tag(key: bytes, header: bytes, flow: Flow, protocol: int, receiver: int) -> bytes:
    """What signs a packet passed on: `header` is its first 8 bytes, from the GUE header on."""
    ports = struct.pack("!HHBB", flow.client_port, flow.public_port, protocol, receiver)
    return siphash24(key, header + flow.client + flow.public + ports)


def read(data: bytes, version: int) -> Packet | str | None:
    """An IP packet; a counter's name if it is left alone by name, None if it has no socket of its own."""
    if version == 4:
        start, protocol, addresses = (data[0] & 15) * 4, data[9], data[12:20]
        fragment, icmp = bool(int.from_bytes(data[6:8], "big") & 0x3FFF), _ICMP
    else:
        start, protocol, addresses = 40, data[6], data[8:40]
        fragment, icmp = protocol == _FRAGMENT, _ICMPV6
        if protocol in _EXTENSIONS:
            return "unreadable"
    if fragment:
        return "fragments"
    middle = len(addresses) // 2
    client, public = addresses[:middle], addresses[middle:]
    if protocol == icmp:
        return _read_error(data, version, start, public)
    if len(data) < start + 20:
        return None
    source, destination, sequence, acknowledged = struct.unpack_from("!HHII", data, start)
    flags = data[start + 13]
    flow = Flow(client, public, source, destination)
    number = acknowledged if flags & _ACK else None
    return Packet(flow, protocol, sequence, number, bool(flags & _SYN), False, start + 20)


def _read_error(data: bytes, version: int, start: int, public: bytes) -> Packet | None:
    if len(data) < start + 8 + (20 if version == 4 else 40):
        return None
    kind, quoted = data[start], data[start + 8 :]
    if version == 4:
        words, total = quoted[0] & 15, int.from_bytes(quoted[2:4], "big")
        sane = quoted[0] >> 4 == 4 and words >= 5 and total >= words * 4
        good = sane and quoted[9] == _TCP and not int.from_bytes(quoted[6:8], "big") & 0x1FFF
        header, source, client, error = words * 4, quoted[12:16], quoted[16:20], kind in (3, 11, 12)
    else:
        good, header, source, client = (
            quoted[0] >> 4 == 6 and quoted[6] == _TCP,
            40,
            quoted[8:24],
            quoted[24:40],
        )
        error = kind < 128
    if not error or not good or source != public or len(quoted) < header + 8:
        return None
    near, far, sequence = struct.unpack_from("!HHI", quoted, header)
    protocol = _ICMP if version == 4 else _ICMPV6
    return Packet(Flow(client, public, far, near), protocol, sequence, None, False, True, start + header + 16)


def _near(number: int, first: int, span: int) -> bool:
    return (number - first + _REACH) % (1 << 32) < span + 2 * _REACH


class Match(Enum):
    """Whether a packet is of the socket here of its flow."""

    ABSENT = 0
    STALE = 1
    DOUBTFUL = 2
    FITS = 3


def match(packet: Packet, chance: Chance) -> Match:
    """By the numbers: both must be near the socket's."""
    numbers = chance.sockets.get(packet.flow)
    if numbers is None:
        return Match.ABSENT
    sent = (numbers.send - numbers.unacknowledged) % (1 << 32)
    if packet.error:
        near = {_near(packet.sequence, numbers.unacknowledged, sent)}
    else:
        near = {_near(packet.sequence, numbers.receive, numbers.window)}
        if packet.acknowledged is not None:
            near.add(_near(packet.acknowledged, numbers.unacknowledged, sent))
    if len(near) == 2:
        return Match.DOUBTFUL
    return Match.FITS if near == {True} else Match.STALE


def choose_spare(spare: int, own: int, found: Match, others: tuple[int, int | None]) -> int:
    """Who gets what fits nobody; `others` are where it came in, and who is asked next."""
    if found is Match.DOUBTFUL or (spare == own and found is Match.ABSENT):
        return own
    origin, following = others
    return spare if spare != own else origin if following is None else following


def from_router(frame: bytes, chance: Chance) -> Outcome:
    """What must happen to a frame that is not the tunnel's."""
    left: Outcome = (NOT_OURS, frame, "")
    version = 4 if frame[12:14] == _ETHERTYPE[4] else 6
    data = frame[14:]
    public = data[16:20] if version == 4 else data[24:40]
    gateway = chance.gateways.get(public)
    protocols = (_TCP, _ICMP) if version == 4 else (_TCP, _ICMPV6, *_EXTENSIONS, _FRAGMENT)
    if gateway is None or data[9 if version == 4 else 6] not in protocols or not _is_whole(data, version):
        return left
    packet = read(data, version)
    if packet is None or isinstance(packet, str):
        chance.counted.update([packet] if packet else [])
        return left
    if packet.begins:
        return left
    found = match(packet, chance)
    if found is Match.FITS:
        chance.counted["hits"] += 1
        return left
    if found is not Match.ABSENT:
        chance.counted["stale"] += 1
    if not gateway.candidates:
        chance.counted["alone"] += 1
        return left
    receiver, flags = chance.owners.get(packet.flow, -1), ASK
    if receiver in gateway.candidates:
        chance.counted["to_owner"] += 1
    else:
        receiver, flags = next(each for each in gateway.order if each in gateway.candidates), ASK | _ANSWER
        chance.counted["passed_on"] += 1
    own = gateway.own
    spare = receiver if found is Match.STALE else own
    header = Header(1 << own, own, spare, own, flags)
    total = int.from_bytes(data[2:4], "big") if version == 4 else int.from_bytes(data[4:6], "big") + 40
    return REDIRECTED, wrap(frame[:12], data, (packet, gateway, header), receiver, total), ""


def _is_whole(data: bytes, version: int) -> bool:
    if version == 6:
        return data[0] >> 4 == 6 and int.from_bytes(data[4:6], "big") + 40 <= len(data)
    words, total = data[0] & 15, int.from_bytes(data[2:4], "big")
    return data[0] >> 4 == 4 and words >= 5 and words * 4 <= total <= len(data)


def sign(packet: Packet, gateway: Gateway, header: Header, receiver: int, version: int) -> bytes:
    """The GUE header."""
    slot = _SLOT if gateway.active else 0
    first = bytes([3, 4 if version == 4 else 41, 0, 0]) + struct.pack(
        "!HBB", header.visited, header.origin << 4 | header.spare, header.sender << 4 | header.flags | slot
    )
    return first + tag(gateway.keys[gateway.active], first, packet.flow, packet.protocol, receiver)


Said = tuple[Packet, Gateway, Header]


def wrap(link: bytes, data: bytes, said: Said, receiver: int, total: int) -> bytes:
    """The whole frame to a sibling; `total`: the inner length that the outer headers say."""
    packet, gateway, header = said
    version = data[0] >> 4
    tos = data[1] if version == 4 else (data[0] << 4 | data[1] >> 4) & 0xFF
    gue = sign(packet, gateway, header, receiver, version)
    udp = struct.pack("!HHHH", 0, 6080, total + 24, 0)
    source, destination = gateway.addresses[gateway.own], gateway.addresses[receiver]
    if len(source) == 4:
        ip = struct.pack("!BBHHHBBH", 0x45, tos, total + 44, 0, 0x4000, 64, _UDP, 0) + source + destination
        ip = ip[:10] + _checksum(ip) + ip[12:]
    else:
        ip = struct.pack("!IHBB", 6 << 28 | tos << 20, total + 24, _UDP, 64) + source + destination
    return link + _ETHERTYPE[4 if len(source) == 4 else 6] + ip + udp + gue + data


def _checksum(header: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (total ^ 0xFFFF).to_bytes(2, "big")


def take(frame: bytes, gue: int, length: int, ends: tuple[bytes, bytes, bytes], chance: Chance) -> Outcome:
    """What must happen to a frame that a sibling has passed on to an address of ours."""
    payload = frame[gue:]
    version = {4: 4, 41: 6}.get(payload[1])
    if version is None:
        return DROPPED, frame, "gue_protocol"
    data = payload[16:]
    visited, ends_of, sender_flags = struct.unpack_from("!HBB", payload, 4)
    header = Header(visited, ends_of >> 4, ends_of & 15, sender_flags >> 4, sender_flags & 15)
    reason, packet = _verify_inner(data, version, length - 16, header)
    if packet is None:
        return DROPPED, frame, reason
    gateway = chance.gateways.get(packet.flow.public)
    if gateway is None:
        return DROPPED, frame, "chance_gateway"
    reason = _verify(payload, packet, gateway, header, ends)
    if reason:
        return DROPPED, frame, reason
    return _act(frame, gue, packet, gateway, header, chance)


def probe(payload: bytes, length: int, ends: tuple[bytes, bytes, bytes], chance: Chance) -> str:
    """Why a probe is dropped; no mutated one is in order."""
    if length != 40:
        return "control_length"
    if payload[0] & 0x1F:
        return "gue_header_length"
    asker, asked, reserved = struct.unpack_from("!BBH", payload, 4)
    if reserved or asker > 15 or asked > 15:
        return "control_field"
    public = payload[8:24]
    gateway = chance.gateways.get(public[12:] if public.startswith(_MAPPED) else public)
    if gateway is None:
        return "chance_gateway"
    other = asked if asker == gateway.own else asker
    known = asker != asked and gateway.own in {asker, asked}
    far, near = gateway.addresses.get(other), gateway.addresses[gateway.own]
    return "chance_tag" if known and (far, near) == (ends[1], ends[0]) else "chance_sibling"


def _verify_inner(data: bytes, version: int, carried: int, header: Header) -> tuple[str, Packet | None]:
    if len(data) < (20 if version == 4 else 40):
        return "truncated", None
    if version == 4:
        total, words = int.from_bytes(data[2:4], "big"), data[0] & 15
        sane = data[0] >> 4 == 4 and words >= 5 and total >= words * 4
    else:
        total, sane = int.from_bytes(data[4:6], "big") + 40, data[0] >> 4 == 6
    if not sane:
        return "inner_header", None
    found = header.flags & 3 == FOUND
    if total < carried or (total != carried and not found):
        return "inner_length", None
    protocol = data[9] if version == 4 else data[6]
    packet = read(data, version) if protocol in (_TCP, _ICMP if version == 4 else _ICMPV6) else None
    if not isinstance(packet, Packet) or packet.begins:
        return "chance_flow", None
    return "", packet


def _verify(
    payload: bytes, packet: Packet, gateway: Gateway, header: Header, ends: tuple[bytes, bytes, bytes]
) -> str:
    own, kind = gateway.own, header.flags & 3
    if gateway.addresses.get(header.sender) != ends[1] or gateway.addresses[own] != ends[0]:
        return "chance_sibling"
    key = gateway.keys.get(header.flags >> 2 & 1)
    if key is None or payload[8:16] != tag(key, payload[:8], packet.flow, packet.protocol, own):
        return "chance_tag"
    sane = header.visited >> header.sender & 1 and header.visited >> header.origin & 1
    if kind == ASK:
        sane = sane and not header.visited >> own & 1
    elif kind == GIVE:
        sane = sane and header.spare == own
    else:
        sane = sane and header.origin == own
    return "" if sane else "chance_field"


def _act(  # noqa: PLR0911 (one for each end)
    frame: bytes, gue: int, packet: Packet, gateway: Gateway, header: Header, chance: Chance
) -> Outcome:
    kind, own = header.flags & 3, gateway.own
    if kind == FOUND:
        chance.owners[packet.flow] = header.sender
        chance.counted["learned"] += 1
        return DROPPED, frame, ""
    if kind == GIVE:
        return _deliver(frame, gue, "taken", chance)
    found = match(packet, chance)
    if found is Match.FITS:
        if kind == RETURN or not header.flags & _ANSWER or header.origin not in gateway.candidates:
            return _deliver(frame, gue, "taken", chance)
        # The packet itself comes in once more, to be delivered.
        chance.counted["taken"] += 1
        said = Header(header.visited | 1 << own, header.origin, own, own, FOUND)
        return _forward(frame, gue, (packet, gateway, said), header.origin, packet.shown)
    if kind == RETURN:
        return _end(frame, gue, packet, gateway, header, chance)
    if found is not Match.ABSENT:
        chance.counted["stale"] += 1
    visited = header.visited | 1 << own
    left = [each for each in gateway.order if each in gateway.candidates and not visited >> each & 1]
    spare = choose_spare(header.spare, own, found, (header.origin, left[0] if left else None))
    if left:
        chance.counted["forwarded"] += 1
        said = Header(visited, header.origin, spare, own, ASK | _ANSWER)
        return _forward(frame, gue, (packet, gateway, said), left[0])
    if header.origin not in gateway.candidates:
        return _deliver(frame, gue, "chain_ends", chance)
    chance.counted["returned"] += 1
    said = Header(visited, header.origin, spare, own, RETURN)
    return _forward(frame, gue, (packet, gateway, said), header.origin)


def _end(frame: bytes, gue: int, packet: Packet, gateway: Gateway, header: Header, chance: Chance) -> Outcome:
    chance.owners.pop(packet.flow, None)
    if match(packet, chance) is not Match.DOUBTFUL and header.spare in gateway.candidates:
        chance.counted["fallbacks"] += 1
        said = Header(header.visited, header.origin, header.spare, gateway.own, GIVE | header.flags & _ANSWER)
        return _forward(frame, gue, (packet, gateway, said), header.spare)
    return _deliver(frame, gue, "chain_ends", chance)


def _forward(
    frame: bytes,
    gue: int,
    said: Said,
    receiver: int,
    shown: int | None = None,
) -> Outcome:
    """The same frame under another header, but for its bytes that nobody reads."""
    gateway, data = said[1], frame[gue + 16 :]
    total = int.from_bytes(frame[gue - 4 : gue - 2], "big") - 24
    if shown is not None and len(data) > shown:
        data, total = data[:shown], shown
    made = bytearray(wrap(frame[:12], data, said, receiver, total))
    if len(gateway.addresses[receiver]) == 4:
        made[15] = frame[15]
        made[24:26] = b"\0\0"
        made[24:26] = _checksum(bytes(made[14:34]))
    else:
        made[14:18] = frame[14:18]
    return REDIRECTED, bytes(made), ""


def _deliver(frame: bytes, gue: int, counter: str, chance: Chance) -> Outcome:
    version = frame[gue + 16] >> 4
    chance.counted[counter] += 1
    taken = bytearray(frame[:12] + _ETHERTYPE[version] + frame[gue + 16 :])
    tos = frame[15] if frame[12:14] == _ETHERTYPE[4] else frame[15] >> 4
    if tos & 3 == oracle_rewrite.CONGESTION and not oracle_rewrite.mark(taken, version):
        return DROPPED, frame, "congestion"
    return NOT_OURS, bytes(taken), ""
