# SPDX-License-Identifier: Apache-2.0
"""The rules of docs/second-chance-packets.md once more, in Python, for single packets and for fuzzing."""

from __future__ import annotations

import struct

import oracle_rewrite
from oracle_chance_flows import EXTENSIONS, FRAGMENT, ICMP, ICMPV6, TCP, Packet, read
from oracle_chance_passing import (
    ANSWER,
    ASK,
    ETHERTYPE,
    FOUND,
    GIVE,
    RETURN,
    Header,
    Said,
    checksum,
    tag,
    wrap,
)
from oracle_chance_state import Chance, Gateway, Match, choose_spare, match

NOT_OURS, DROPPED, REDIRECTED = -1, 2, 7
_MAPPED = bytes(10) + b"\xff\xff"

Outcome = tuple[int, bytes, str]
"""Verdict, packet (of no meaning when dropped; UDP source port 0 when made here), reason."""


def from_router(frame: bytes, chance: Chance) -> Outcome:
    """What must happen to a frame that is not the tunnel's."""
    left: Outcome = (NOT_OURS, frame, "")
    version = 4 if frame[12:14] == ETHERTYPE[4] else 6
    data = frame[14:]
    public = data[16:20] if version == 4 else data[24:40]
    gateway = chance.gateways.get(public)
    protocols = (TCP, ICMP) if version == 4 else (TCP, ICMPV6, *EXTENSIONS, FRAGMENT)
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
    (receiver, joined), flags = chance.owners.get(packet.flow, (-1, 0)), ASK
    if receiver in gateway.candidates and joined == gateway.joined[receiver]:
        chance.counted["to_owner"] += 1
    else:
        receiver, flags = next(each for each in gateway.order if each in gateway.candidates), ASK | ANSWER
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
    packet = read(data, version) if protocol in (TCP, ICMP if version == 4 else ICMPV6) else None
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
        chance.owners[packet.flow] = header.sender, gateway.joined[header.sender]
        chance.counted["learned"] += 1
        return DROPPED, frame, ""
    if kind == GIVE:
        return _deliver(frame, gue, "taken", chance)
    found = match(packet, chance)
    if found is Match.FITS:
        if kind == RETURN or not header.flags & ANSWER or header.origin not in gateway.candidates:
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
    spare = choose_spare(header.spare, gateway, found, (header.origin, left[0] if left else None))
    if left:
        chance.counted["forwarded"] += 1
        said = Header(visited, header.origin, spare, own, ASK | ANSWER)
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
        said = Header(header.visited, header.origin, header.spare, gateway.own, GIVE | header.flags & ANSWER)
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
        made[24:26] = checksum(bytes(made[14:34]))
    else:
        made[14:18] = frame[14:18]
    return REDIRECTED, bytes(made), ""


def _deliver(frame: bytes, gue: int, counter: str, chance: Chance) -> Outcome:
    version = frame[gue + 16] >> 4
    chance.counted[counter] += 1
    taken = bytearray(frame[:12] + ETHERTYPE[version] + frame[gue + 16 :])
    tos = frame[15] if frame[12:14] == ETHERTYPE[4] else frame[15] >> 4
    if tos & 3 == oracle_rewrite.CONGESTION and not oracle_rewrite.mark(taken, version):
        return DROPPED, frame, "congestion"
    return NOT_OURS, bytes(taken), ""
