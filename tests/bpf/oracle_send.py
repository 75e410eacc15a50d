# SPDX-License-Identifier: Apache-2.0
"""The rules of docs/transport.md for what goes into the tunnel once more, in Python, for fuzzing."""

from __future__ import annotations

import struct

import oracle_rewrite
from oracle import DROPPED, NOT_OURS, REDIRECTED, Outcome, Pair, Side, World, flow_of, tag

_ETHERTYPE = {4: b"\x08\0", 6: b"\x86\xdd"}
_VERSION = {ethertype: version for version, ethertype in _ETHERTYPE.items()}
_VLANS = (b"\x81\0", b"\x88\xa8")
_ARP = b"\x08\x06"
_ON_LINK_TYPES = (133, 135, 136)
_QUOTED = 20


def complement(data: bytes) -> bytes:
    """The internet checksum."""
    data += b"\0" * (len(data) % 2)
    total = int.from_bytes(data, "big") % 0xFFFF
    if not total and any(data):
        total = 0xFFFF
    return (total ^ 0xFFFF).to_bytes(2, "big")


def instance_sends(frame: bytes, world: World) -> Outcome:  # noqa: PLR0911 (one for each fate)
    """From an instance of an EPIC node."""
    version = _VERSION.get(frame[12:14])
    if version is None:
        return (NOT_OURS, frame, "") if frame[12:14] == _ARP else (DROPPED, frame, "instance_protocol")
    if version == 6 and _stays_on_link(frame):
        return (NOT_OURS, frame, "") if _is_discovery(frame) else (DROPPED, frame, "instance_protocol")
    if not _is_sane(frame, version):
        return DROPPED, frame, "inner_header"
    source, destination = _ends(frame, version)
    pair = world.pairs.get((source, destination))
    if pair is None:
        (side,) = world.tunnels.values()
        if source == side.insides[version]:
            return DROPPED, frame, "endpoint_unknown"
        return (NOT_OURS, frame, "") if source in world.publics else (DROPPED, frame, "instance_source")
    side = world.tunnels[pair.tunnel]
    too_big = _too_big(frame, version, side, world.mtu)
    if too_big:
        return too_big
    return _encapsulated(frame, version, pair, world)


def workload_sends(frame: bytes, world: World, pod: bool) -> Outcome:  # noqa: PLR0911
    """From a workload node; `pod`: at the interface of a pod, which can be answered."""
    version = _VERSION.get(frame[12:14])
    if version is None:
        return _tagged(frame, world)
    source, destination = _ends(frame, version)
    if destination not in _insides(version, world):
        return _passed(frame, version, source, world)
    if not _is_sane(frame, version):
        return DROPPED, frame, "inner_header"
    packet = bytearray(frame)
    pair = world.pairs.get((destination, source))
    if pair is None:
        about = oracle_rewrite.quoted_ends(frame, version)
        pair = world.pairs.get(about) if about and about[0] == destination else None
        if pair is None or about is None:
            return DROPPED, frame, "source_not_endpoint"
        try:
            oracle_rewrite.replace(packet, version, oracle_rewrite.SOURCE, about[1])
        except oracle_rewrite.Impossible:
            return DROPPED, frame, "source_not_endpoint"
    too_big = _too_big(bytes(packet), version, world.tunnels[pair.tunnel], world.mtu)
    if too_big:
        return too_big if pod else (DROPPED, frame, "too_big")
    return _wrap(bytes(packet), version, pair.tunnel, world)


def gateway_sends(frame: bytes, world: World) -> Outcome:
    """From an EPIC node by its underlay."""
    version = _VERSION.get(frame[12:14])
    if version is None:
        return _tagged(frame, world)
    return _passed(frame, version, _ends(frame, version)[0], world)


def _insides(version: int, world: World) -> set[bytes]:
    return {side.insides[version] for side in world.tunnels.values()}


def _passed(frame: bytes, version: int, source: bytes, world: World) -> Outcome:
    if source in _insides(version, world):
        return DROPPED, frame, "inside_source"
    return NOT_OURS, frame, ""


def _tagged(frame: bytes, world: World) -> Outcome:
    """Behind up to two VLAN tags."""
    start = 12
    while frame[start : start + 2] in _VLANS and start < 20:
        start += 4
    version = _VERSION.get(frame[start : start + 2])
    if version is None:
        return NOT_OURS, frame, ""
    ends = frame[start + 14 : start + 22] if version == 4 else frame[start + 10 : start + 42]
    if len(ends) < (8 if version == 4 else 32):
        return NOT_OURS, frame, ""
    source, destination = ends[: len(ends) // 2], ends[len(ends) // 2 :]
    if destination in _insides(version, world):
        return DROPPED, frame, "inside_vlan"
    return _passed(frame, version, source, world)


def piece_returns(frame: bytes, world: World) -> Outcome:
    """A piece of a GSO packet, at either end."""
    version = _VERSION.get(frame[12:14])
    if version is None:
        return DROPPED, frame, ""
    if not _is_sane(frame, version):
        return DROPPED, frame, "inner_header"
    source, destination = _ends(frame, version)
    pair = world.pairs.get((source, destination)) or world.pairs.get((destination, source))
    if pair is None:
        return DROPPED, frame, ""
    if _too_big(frame, version, world.tunnels[pair.tunnel], world.mtu):
        return DROPPED, frame, "too_big"
    return _encapsulated(frame, version, pair, world)


def _encapsulated(frame: bytes, version: int, pair: Pair, world: World) -> Outcome:
    packet = bytearray(frame)
    if pair.real is not None:
        try:
            oracle_rewrite.replace(packet, version, oracle_rewrite.DESTINATION, pair.real)
        except oracle_rewrite.Impossible:
            return DROPPED, frame, "inner_header"
    return _wrap(bytes(packet), version, pair.tunnel, world)


def _ends(frame: bytes, version: int) -> tuple[bytes, bytes]:
    return (frame[26:30], frame[30:34]) if version == 4 else (frame[22:38], frame[38:54])


def _stays_on_link(frame: bytes) -> bool:
    return (frame[38] == 0xFE and frame[39] & 0xC0 == 0x80) or frame[38:40] == b"\xff\x02"


def _is_discovery(frame: bytes) -> bool:
    return frame[20] == 58 and frame[21] == 255 and len(frame) > 54 and frame[54] in _ON_LINK_TYPES


def _length(frame: bytes, version: int) -> int:
    return int.from_bytes(frame[16:18], "big") if version == 4 else int.from_bytes(frame[18:20], "big") + 40


def _is_sane(frame: bytes, version: int) -> bool:
    words = frame[14] & 15
    if frame[14] >> 4 != version or _length(frame, version) + 14 > len(frame):
        return False
    return version == 6 or (words >= 5 and _length(frame, version) >= words * 4)


def _overhead(side: Side) -> int:
    assert side.far is not None
    return 48 if len(side.far.local) == 4 else 68


def _too_big(frame: bytes, version: int, side: Side, mtu: int) -> Outcome | None:
    """None: it fits."""
    if _length(frame, version) + _overhead(side) <= mtu:
        return None
    found = oracle_rewrite.transport(frame, version)
    if found is None or oracle_rewrite.quoted(frame, version, found):
        return DROPPED, frame, "too_big"
    if version == 4 and (frame[14] & 15 != 5 or not frame[20] & 0x40):
        return DROPPED, frame, "too_big"
    return REDIRECTED, _error(frame, version, mtu - _overhead(side)), "too_big"


def _error(frame: bytes, version: int, mtu: int) -> bytes:
    source, destination = _ends(frame, version)
    quoted = frame[14 : 14 + (20 if version == 4 else 40) + _QUOTED]
    link = frame[6:12] + frame[:6] + _ETHERTYPE[version]
    if version == 4:
        icmp = struct.pack("!BBHI", 3, 4, 0, mtu) + quoted
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(quoted), 0, 0, 64, 1, 0, destination, source)
        head = head[:10] + complement(head) + head[12:]
        return link + head + icmp[:2] + complement(icmp) + icmp[4:]
    icmp = struct.pack("!BBHI", 2, 0, 0, mtu) + quoted
    head = struct.pack("!IHBB16s16s", 6 << 28, len(icmp), 58, 64, destination, source)
    pseudo = destination + source + struct.pack("!II", len(icmp), 58)
    return link + head + icmp[:2] + complement(pseudo + icmp) + icmp[4:]


def _wrap(frame: bytes, version: int, tunnel: int, world: World) -> Outcome:
    side, length = world.tunnels[tunnel], _length(frame, version)
    assert side.far is not None
    local, remote, port = side.far
    signature = tag(side.keys[0], tunnel, side.service, flow_of(frame[14:]))
    gue = struct.pack("!BBHII8s", 4, 4 if version == 4 else 41, 0, tunnel, side.service, signature)
    udp = struct.pack("!HHHH", 6080, port, length + 28, 0)
    tos = frame[15] if version == 4 else int.from_bytes(frame[14:16], "big") >> 4 & 0xFF
    if len(local) == 4:
        head = struct.pack("!BBHHHBBH4s4s", 0x45, tos, length + 48, 0, 0x4000, 64, 17, 0, local, remote)
        head = head[:10] + complement(head) + head[12:]
    else:
        head = struct.pack("!IHBB16s16s", 6 << 28 | tos << 20, length + 28, 17, 64, local, remote)
    world.sent[0] += 1
    world.sent[1] += length
    link = frame[:12] + _ETHERTYPE[4 if len(local) == 4 else 6]
    return REDIRECTED, link + head + udp + gue + frame[14:], ""
