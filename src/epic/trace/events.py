"""What the kernel told, as steps of packets."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from epic.bpf.drop_reasons import DROP_REASONS
from epic.bpf.wire import Kind

SNAP = 160
_RUN = struct.Struct(f"=QQ8Iii16s16s{SNAP}s{SNAP}s")
_RECEIVED, _SENT, _TAKEN, _FREED = range(4)
_OTHER, _DATA, _CONTROL = range(3)
_PORTS = (6, 17)
_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}
_FLAGS = "FSRPAU"
_NO_SOCKET = "NO_SOCKET"

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Packet:
    """An IP packet's identity, and the outer one's when it is in the tunnel."""

    source: Address
    destination: Address
    protocol: str
    source_port: int = 0
    destination_port: int = 0
    flags: str = ""
    tunnel: int | None = None
    outer: str | None = None


@dataclass(frozen=True)
class Step:
    """One line."""

    at_ns: int
    cpu: int
    interface: str
    direction: str
    step: str
    length: int
    packet: Packet | None
    reason: str | None = None
    text: str | None = None


def packet(data: bytes) -> Packet | None:
    """Decode from the outermost IP header on; None when it is not IP."""
    outer = _ip(data)
    if outer is None:
        return None
    found, rest = outer
    lanes = range(6080, 6084)
    gue = rest[8:]
    if found.protocol != "udp" or not (found.source_port in lanes or found.destination_port in lanes):
        return found
    if len(gue) < 8 or gue[0] & 0xC0:
        return found
    tunnel = int.from_bytes(gue[4:8], "big")
    ends = f"{found.source}:{found.source_port} > {found.destination}:{found.destination_port}"
    if gue[0] & 0x20:
        name = Kind(gue[1]).name.lower().replace("_", "-") if gue[1] in tuple(Kind) else f"control {gue[1]}"
        return Packet(found.source, found.destination, name, tunnel=tunnel, outer=ends)
    inner = _ip(gue[20:])
    if inner is None:
        return Packet(found.source, found.destination, "malformed", tunnel=tunnel, outer=ends)
    return Packet(**(vars(inner[0]) | {"tunnel": tunnel, "outer": ends}))


def _ip(data: bytes) -> tuple[Packet, bytes] | None:
    if len(data) >= 20 and data[0] >> 4 == 4:
        ends, number, rest = (data[12:16], data[16:20]), data[9], data[(data[0] & 15) * 4 :]
    elif len(data) >= 40 and data[0] >> 4 == 6:
        ends, number, rest = (data[8:24], data[24:40]), data[6], data[40:]
    else:
        return None
    source, destination = (ip_address(end) for end in ends)
    name = _NAMES.get(number, str(number))
    if number not in _PORTS or len(rest) < 14:
        return Packet(source, destination, name), rest
    flags = "".join(letter for bit, letter in enumerate(_FLAGS) if rest[13] >> bit & 1) if number == 6 else ""
    source_port, destination_port = struct.unpack_from("!HH", rest)
    return Packet(source, destination, name, source_port, destination_port, flags), rest


def steps(data: bytes, kernel_reasons: Mapping[int, str]) -> list[Step]:
    """The lines of one event; `kernel_reasons` names the kernel's own drops."""
    entered, left, kind, cpu, _, _, before_len, after_len, before_as, after_as, why, ours, *rest = (
        _RUN.unpack(data)
    )
    before_name, name = (text.rstrip(b"\0").decode(errors="replace") or "-" for text in rest[:2])
    before, after = (packet(snap) for snap in rest[2:])
    arrived = Step(entered, cpu, before_name, "in", "instance sends", before_len, before)
    inside = before_as == _DATA and after_as == _OTHER
    whose = (
        Packet(**(vars(after) | {"tunnel": before.tunnel, "outer": before.outer}))
        if (inside and after and before)
        else after
    )
    decapsulated = Step(left, cpu, before_name, "in", "decapsulated", after_len, whose)
    if kind == _RECEIVED:
        return [Step(entered, cpu, before_name, "in", "underlay receives", before_len, before)]
    if kind == _SENT and after_as != _OTHER:
        step = "encapsulated" if before_as == _OTHER and after_as == _DATA else "passed on"
        if after_as == _CONTROL and before_as == _OTHER:
            step = "underlay sends"
        first = [arrived] if entered and before_as == _OTHER else []
        return [*first, Step(left, cpu, name, "out", step, after_len, after)]
    if kind in (_SENT, _TAKEN):
        direction = "out" if kind == _SENT else "in"
        last = Step(left, cpu, name, direction, "delivered", after_len, whose)
        return [decapsulated, last] if inside else [last]
    reason, text = _reason(why, ours, kernel_reasons)
    first = [decapsulated] if inside else [arrived] if entered and before_as == _OTHER else []
    echoed = reason == _NO_SOCKET and whose is not None and whose.protocol in ("icmp", "icmp6")
    if inside and echoed:  # answers of ping go to raw sockets as copies, the original has no taker
        return [*first, Step(left, cpu, name, "in", "delivered", after_len, whose)]
    return [*first, Step(left, cpu, name, "in", "dropped", after_len, whose, reason, text)]


def _reason(why: int, ours: int, kernel_reasons: Mapping[int, str]) -> tuple[str, str]:
    if 0 <= ours < len(DROP_REASONS):
        return DROP_REASONS[ours]
    name = kernel_reasons.get(why, str(why)).removeprefix("SKB_DROP_REASON_")
    return name, "by the kernel, not by the tunnel's programs"
