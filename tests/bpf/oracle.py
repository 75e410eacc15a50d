"""The rules of docs/transport.md for data and control packets once more, in Python, for fuzzing."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from epic.bpf import wire
from epic.bpf.dataplane import Tunnel

NOT_OURS, DROPPED, ACCEPTED = "not ours", "dropped", "accepted"
_MIN = 14 + 48 + 20


def fate(frame: bytes, tunnel: Tunnel, endpoint: IPv4Address, locals_: set[IPv4Address]) -> str:
    """What must happen to a frame on the underlay; control counters count as high enough."""
    if not _is_gue(frame, locals_):
        return NOT_OURS
    length = int.from_bytes(frame[16:18], "big")
    udp_length = int.from_bytes(frame[38:40], "big")
    sound = (
        len(frame) >= _MIN
        and frame[14] & 15 == 5
        and not frame[20] & 0x20
        and _MIN - 14 <= length <= len(frame) - 14
        and udp_length + 20 == length
        and frame[42] >> 6 == 0
        and frame[44:46] == b"\0\0"
        and IPv4Address(frame[30:34]) == tunnel.local
    )
    if not sound:
        return DROPPED
    accept = _control if frame[42] & 0x20 else _data
    return ACCEPTED if accept(frame, length, tunnel, endpoint) else DROPPED


def _is_gue(frame: bytes, locals_: set[IPv4Address]) -> bool:
    header = frame[14] & 15
    ports = 14 + header * 4
    return (
        frame[12:14] == b"\x08\0"
        and len(frame) >= 42
        and frame[23] == 17
        and header >= 5
        and not int.from_bytes(frame[20:22], "big") & 0x1FFF
        and frame[ports + 2 : ports + 4] == (6080).to_bytes(2, "big")
        and IPv4Address(frame[30:34]) in locals_
    )


def _data(frame: bytes, length: int, tunnel: Tunnel, endpoint: IPv4Address) -> bool:
    id_, service = struct.unpack_from("!II", frame, 46)
    inner = frame[62:]
    source, destination = IPv4Address(inner[12:16]), IPv4Address(inner[16:20])
    header, inner_length = (inner[0] & 15) * 4, int.from_bytes(inner[2:4], "big")
    ends = (destination, source) if tunnel.interface else (source, destination)
    tags = [wire.data_tag(key, id_, service, source, destination, inner[9]) for key in tunnel.keys if key]
    marked_unable = frame[15] & 3 == 3 and inner[1] & 3 == 0
    return (
        frame[42:44] == b"\x04\x04"
        and (id_, service) == (tunnel.id, tunnel.service)
        and (inner[0] >> 4, inner_length) == (4, length - 48)
        and 20 <= header <= inner_length
        and ends == (tunnel.inside, endpoint)
        and frame[54:62] in tags
        and not marked_unable
    )


def _control(frame: bytes, length: int, tunnel: Tunnel, _: IPv4Address) -> bool:
    wanted = wire.Kind.HELLO if tunnel.interface else wire.Kind.HELLO_ACK
    for key in filter(None, tunnel.keys):
        try:
            control = wire.decode(frame[42 : 14 + length], key)
        except wire.WireError:
            continue
        return control.kind is wanted and control.tunnel == tunnel.id
    return False
