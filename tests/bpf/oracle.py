# SPDX-License-Identifier: Apache-2.0
"""The rules of docs/transport.md for what comes from the underlay once more, in Python, for fuzzing."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import oracle_chance
import oracle_rewrite
from oracle_chance_state import Chance

from epic.bpf.packets.siphash import siphash24

NOT_OURS, DROPPED, REDIRECTED = -1, 2, 7
"""As the programs return them."""

_PORT = 6080
_ETHERTYPE = {4: b"\x08\0", 6: b"\x86\xdd"}
_HELLO, _HELLO_ACK, _PROBE = 128, 129, 130

Ends = tuple[bytes, bytes, bytes]
"""Of an outer packet: destination, source, source port."""

Outcome = tuple[int, bytes, str]
"""Verdict, packet (of no meaning when dropped), reason (empty unless dropped)."""


class End(NamedTuple):
    """Where packets of a tunnel go."""

    local: bytes
    remote: bytes
    port: int


@dataclass
class Side:
    """A tunnel's entry."""

    service: int
    keys: tuple[bytes, ...]
    """All verify, the first one signs."""
    insides: dict[int, bytes]
    local: bytes | None
    """The only address that packets may come to; None: any of ours."""
    far: End | None


class Pair(NamedTuple):
    """An endpoint's entry."""

    tunnel: int
    real: bytes | None = None
    redirected: bool = False


@dataclass
class World:
    """What a host knows."""

    gateway: bool
    tunnels: dict[int, Side]
    pairs: dict[tuple[bytes, bytes], Pair]
    """By inside address and endpoint."""
    locals: set[bytes]
    mtu: int = 1500
    generation: int = 0
    """Of the counters: hellos of others are taken, each once, but teach nothing."""
    strays: dict[int, int] = field(default_factory=dict)
    """The highest counter of such hellos, by tunnel."""
    publics: set[bytes] = field(default_factory=set)
    received: list[int] = field(default_factory=lambda: [0, 0])
    """Packets and bytes."""
    sent: list[int] = field(default_factory=lambda: [0, 0])
    counters: dict[tuple[int, int], int] = field(default_factory=dict)
    """Of control packets, by tunnel and lane."""
    seen: dict[tuple[int, int], bytes] = field(default_factory=dict)
    """Where hellos came from, by tunnel and lane: address and port."""
    lanes: dict[int, int] = field(default_factory=dict)
    """That the last hello of a tunnel said there are."""
    chance: Chance = field(default_factory=Chance)
    """Of second chance; workload nodes have none."""
    keeps_family: bool = False
    """Its kernel cannot take a packet out of one of the other family."""

    def named(self, tunnel: int, real: bytes) -> bytes | None:
        """What an endpoint of this tunnel is called here when it has another name."""
        for (_, name), pair in self.pairs.items():
            if pair.tunnel == tunnel and pair.real == real:
                return name
        return None


@lru_cache(maxsize=65536)
def tag(key: bytes, tunnel: int, service: int, flow: bytes) -> bytes:
    """What signs a data packet: `flow` is source, destination and protocol."""
    return siphash24(key, struct.pack("!II", tunnel, service) + flow)


def flow_of(packet: bytes) -> bytes:
    """Of an inner packet."""
    return packet[12:20] + packet[9:10] if packet[0] >> 4 == 4 else packet[8:40] + packet[6:7]


@lru_cache(maxsize=65536)
def control_tag(key: bytes, message: bytes) -> bytes:
    """What signs a control packet."""
    return siphash24(key, message)


def receive(frame: bytes, world: World) -> Outcome:  # noqa: PLR0911 (one for each kind)
    """What must happen to a frame from the underlay."""
    start = {_ETHERTYPE[4]: 34, _ETHERTYPE[6]: 54}.get(frame[12:14])
    if start is None or len(frame) < start + 8:
        return NOT_OURS, frame, ""
    ports = range(_PORT, _PORT + (1 if world.gateway else 4))
    reason = _outer4(frame, ports) if start == 34 else _outer6(frame, ports)
    destination = frame[30:34] if start == 34 else frame[38:54]
    if reason is None and world.gateway:
        return oracle_chance.from_router(frame, world.chance)
    if reason is None or destination not in world.locals:
        return NOT_OURS, frame, ""
    if reason:
        return DROPPED, frame, reason
    payload = frame[start + 8 :]
    length = int.from_bytes(frame[start + 4 : start + 6], "big") - 8 & 0xFFFFFFFF
    reason = _gue(payload, length)
    if reason:
        return DROPPED, frame, reason
    source = frame[26:30] if start == 34 else frame[22:38]
    ends = destination, source, frame[start : start + 2]
    if payload[0] & 0x20:
        probe = world.gateway and payload[1] == _PROBE
        reason = (
            oracle_chance.probe(payload, length, ends, world.chance)
            if probe
            else _control(payload, length, ends, world)
        )
        return (DROPPED if reason else NOT_OURS), frame, reason
    if world.gateway and payload[0] & 0x1F == 3:
        return oracle_chance.take(frame, start + 8, length, ends, world.chance)
    return _data(frame, start + 8, length, ends, world)


def _outer4(frame: bytes, ports: range) -> str | None:
    """None: not ours; empty: in order."""
    words = frame[14] & 15
    udp = 14 + words * 4
    fragment = int.from_bytes(frame[20:22], "big")
    if frame[14] >> 4 != 4 or frame[23] != 17 or words < 5 or fragment & 0x1FFF or len(frame) < udp + 4:
        return None
    if int.from_bytes(frame[udp + 2 : udp + 4], "big") not in ports:
        return None
    if words > 5:
        return "outer_options"
    if fragment & 0x2000:
        return "outer_fragment"
    total, udp_length = int.from_bytes(frame[16:18], "big"), int.from_bytes(frame[38:40], "big")
    return "outer_length" if total + 14 > len(frame) or udp_length + 20 != total else ""


def _outer6(frame: bytes, ports: range) -> str | None:
    if frame[14] >> 4 != 6 or frame[20] != 17 or int.from_bytes(frame[56:58], "big") not in ports:
        return None
    length = int.from_bytes(frame[18:20], "big")
    return "outer_length" if length + 54 > len(frame) or frame[58:60] != frame[18:20] else ""


def _gue(payload: bytes, length: int) -> str:
    if len(payload) < 40 or length < 40:
        return "truncated"
    if payload[0] & 0xC0:
        return "gue_version"
    return "gue_flags" if payload[2:4] != b"\0\0" else ""


def _control(  # noqa: PLR0911 (one for each reason)
    payload: bytes, length: int, ends: Ends, world: World
) -> str:
    if len(payload) < 48:
        return "control_length"
    if payload[0] & 0x1F:
        return "gue_header_length"
    if payload[1] != (_HELLO if world.gateway else _HELLO_ACK):
        return "control_type"
    if length != 48:
        return "control_length"
    tunnel, counter = struct.unpack_from("!IQ", payload, 4)
    lane, lanes, flags, generation = struct.unpack_from("!BBHI", payload, 32)
    if not lane < lanes <= 4 or flags & ~(3 if world.gateway else 4):
        return "control_field"
    side = world.tunnels.get(tunnel)
    if side is None:
        return "tunnel_unknown"
    if side.local is not None and side.local != ends[0]:
        return "tunnel_address"
    if payload[40:48] not in [control_tag(key, payload[:40]) for key in side.keys]:
        return "tag_wrong"
    if not world.gateway and not _is_far_end(tunnel, ends, world):
        return "outer_source"
    if world.gateway and generation != world.generation:
        if counter <= world.strays.get(tunnel, 0):
            return "control_replayed"
        world.strays[tunnel] = counter
        return ""
    if counter <= world.counters.get((tunnel, lane), 0):
        return "control_replayed"
    world.counters[tunnel, lane] = counter
    world.seen[tunnel, lane] = ends[1] + ends[2]
    world.lanes[tunnel] = lanes
    return ""


def _is_far_end(tunnel: int, ends: Ends, world: World) -> bool:
    """Whether a verified packet comes from where the tunnel's far end is known to be."""
    if not world.gateway:
        far = world.tunnels[tunnel].far
        return far is not None and ends[1] == far.remote
    known = (world.seen.get((tunnel, lane)) for lane in range(max(1, world.lanes.get(tunnel, 0))))
    return ends[1] + ends[2] in known


def _data(  # noqa: PLR0911 (one for each reason)
    frame: bytes, gue: int, length: int, ends: Ends, world: World
) -> Outcome:
    payload = frame[gue:]
    inner = payload[20:]
    reason = _inner(payload, length)
    if reason:
        return DROPPED, frame, reason
    tunnel, service = struct.unpack_from("!II", payload, 4)
    side = world.tunnels.get(tunnel)
    if side is None:
        return DROPPED, frame, "tunnel_unknown"
    if side.local is not None and side.local != ends[0]:
        return DROPPED, frame, "tunnel_address"
    if service != side.service:
        return DROPPED, frame, "service_wrong"
    flow = flow_of(inner)
    if payload[12:20] not in [tag(key, tunnel, service, flow) for key in side.keys]:
        return DROPPED, frame, "tag_wrong"
    if not _is_far_end(tunnel, ends, world):
        return DROPPED, frame, "outer_source"
    middle = len(flow) // 2
    source, far = flow[:middle], flow[middle : 2 * middle]
    inside, far = (far, source) if world.gateway else (source, far)
    if inside != side.insides.get(inner[0] >> 4):
        return DROPPED, frame, "inner_spoofed"
    return _deliver(frame, gue, (tunnel, inside, far), world)


def _inner(payload: bytes, length: int) -> str:
    inner = payload[20:]
    if payload[0] & 0x1F != 4:
        return "gue_header_length"
    if payload[1] not in (4, 41):
        return "gue_protocol"
    if payload[1] == 4:
        words, total = inner[0] & 15, int.from_bytes(inner[2:4], "big")
        if inner[0] >> 4 != 4 or words < 5 or total < words * 4:
            return "inner_header"
    else:
        if len(inner) < 40 or length < 60:
            return "truncated"
        total = int.from_bytes(inner[4:6], "big") + 40
        if inner[0] >> 4 != 6:
            return "inner_header"
    return "inner_length" if total + 20 != length else ""


def _deliver(frame: bytes, gue: int, pair_of: tuple[int, bytes, bytes], world: World) -> Outcome:
    tunnel, inside, far = pair_of
    pair = world.pairs.get((inside, far))
    name = None
    if pair is None or pair.tunnel != tunnel or pair.real is not None:
        name = world.named(tunnel, far) if world.gateway else None
        if name is None:
            return DROPPED, frame, "endpoint_unknown"
    version = frame[gue + 20] >> 4
    if world.keeps_family and frame[12:14] != _ETHERTYPE[version]:
        return DROPPED, frame, "no_room"
    taken = bytearray(frame[:12] + _ETHERTYPE[version] + frame[gue + 20 :])
    tos = frame[15] if frame[12:14] == _ETHERTYPE[4] else frame[15] >> 4
    if tos & 3 == oracle_rewrite.CONGESTION and not oracle_rewrite.mark(taken, version):
        return DROPPED, frame, "congestion"
    total = int.from_bytes(taken[16:18], "big") if version == 4 else int.from_bytes(taken[18:20], "big") + 40
    if name is not None:
        try:
            oracle_rewrite.replace(taken, version, oracle_rewrite.SOURCE, name)
        except oracle_rewrite.Impossible:
            return DROPPED, frame, "inner_header"
    world.received[0] += 1
    world.received[1] += total
    redirected = world.gateway or (pair is not None and pair.redirected)
    return (REDIRECTED if redirected else NOT_OURS), bytes(taken), ""


def take_out(frame: bytes, world: World) -> bytes | None:
    """The packet that an XDP program makes of a frame; None: it is left as it is."""
    before = world.received[:], dict(world.counters)
    heard = dict(world.seen), dict(world.lanes)
    verdict, packet, _ = receive(frame, world)
    plain = world.received != before[0]
    world.received, world.counters = before
    world.seen, world.lanes = heard
    marked = (frame[15] if frame[12:14] == _ETHERTYPE[4] else frame[15] >> 4) & 3 == oracle_rewrite.CONGESTION
    if verdict == DROPPED or not plain or marked:
        return None
    gue = 42 if frame[12:14] == _ETHERTYPE[4] else 62
    return packet if packet[14:] == frame[gue + 20 :] else None
