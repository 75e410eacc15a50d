# SPDX-License-Identifier: Apache-2.0
"""What the kernel told, as steps of packets."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from epic.bpf.packets.wire import Kind
from epic.bpf.tables.drop_reasons import DROP_REASONS
from epic.model.values.naming import INSTANCE_INTERFACE

SNAP = 160
RUN = struct.Struct(f"=QQ12Iii16s16s{SNAP}s{SNAP}s")
"""As `struct run` in trace.bpf.c."""
RECEIVED, SENT, TAKEN, FREED = range(4)
OTHER, DATA, CONTROL, INSIDE, PASSED_ON = range(5)
_PORTS = (6, 17)
_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}
_ETHER = {0x0806: "arp", 0x8100: "vlan", 0x88A8: "vlan", 0x88CC: "lldp"}
_FLAGS = "FSRPAU"
_DATA_WORDS, _PASSED_ON_WORDS = 4, 3
"""Lengths of the private header behind GUE's own: a tunnel's, and that of a packet passed on to a sibling."""
_PASSAGES = ("passed on", "returned", "passed on", "found")
"""What a packet with that header is, by its kind: a question, sent back, given, or the answer."""
_FRESH_TTL = 64
"""Of outer headers; that of a packet forwarded is less."""

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Packet:
    """A packet's identity, and the outer one's when it is in the tunnel; no addresses when it is not IP."""

    source: Address | None
    destination: Address | None
    protocol: str
    source_port: int = 0
    destination_port: int = 0
    flags: str = ""
    tunnel: int | None = None
    outer: str | None = None
    passage: str | None = None
    """Of a packet passed on to a sibling: what became of it so far, by the siblings' indexes."""


@dataclass(frozen=True)
class Step:
    """One line."""

    at_ns: int
    cpu: int
    interface: str
    direction: str
    step: str
    length: int
    packet: Packet
    reason: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Run:
    """What the kernel knows of a packet: as it was received (`before`), if it was, and as it is now."""

    entered: int
    left: int
    kind: int
    cpu: int
    before_namespace: int
    namespace: int
    before_length: int
    length: int
    before_as: int
    after_as: int
    tunnel: int
    before_ether: int
    ether: int
    why: int
    ours: int
    reserved: int
    before_name: bytes
    name: bytes
    before_data: bytes
    data: bytes

    @property
    def came_in(self) -> str:
        return _text(self.before_name)

    @property
    def place(self) -> str:
        """Of what a socket took only the interface where it came in is known."""
        return _text(self.name) or self.came_in or "-"

    @property
    def inside(self) -> bool:
        """Whether it was in the tunnel, or passed on, and is no longer."""
        return self.before_as in (DATA, INSIDE, PASSED_ON) and self.after_as == OTHER

    @property
    def before(self) -> Packet:
        found = packet(self.before_data, self.before_ether)
        return replace(found, tunnel=self.tunnel) if self.before_as == INSIDE else found

    @property
    def after(self) -> Packet:
        found = packet(self.data, self.ether)
        if not self.inside:
            return found
        before = self.before
        return replace(found, tunnel=before.tunnel, outer=before.outer, passage=before.passage)


def _text(name: bytes) -> str:
    return name.rstrip(b"\0").decode(errors="replace")


def packet(data: bytes, ether: int = 0x0800) -> Packet:
    """Decode from the outermost IP header on."""
    outer = _ip(data)
    if outer is None:
        return Packet(None, None, _ETHER.get(ether, f"ethertype {ether:#06x}"))
    found, rest = outer
    lanes = range(6080, 6084)
    gue = rest[8:]
    if found.protocol != "udp" or not (found.source_port in lanes or found.destination_port in lanes):
        return found
    if len(gue) < 8 or gue[0] & 0xC0:
        return found
    ends = f"{found.source}:{found.source_port} > {found.destination}:{found.destination_port}"
    return _unwrap(replace(found, source_port=0, destination_port=0, outer=ends), gue)


def _unwrap(outer: Packet, gue: bytes) -> Packet:
    """What is behind a GUE header; the outer packet's addresses if nothing is."""
    tunnel = int.from_bytes(gue[4:8], "big")
    if gue[0] & 0x20:
        name = Kind(gue[1]).name.lower().replace("_", "-") if gue[1] in tuple(Kind) else f"control {gue[1]}"
        return replace(outer, protocol=name, tunnel=tunnel)
    is_passed_on = gue[0] & 0x1F == _PASSED_ON_WORDS
    inner = _ip(gue[4 + 4 * (_PASSED_ON_WORDS if is_passed_on else _DATA_WORDS) :])
    found = replace(inner[0], outer=outer.outer) if inner else replace(outer, protocol="malformed")
    return replace(found, passage=_passage(gue)) if is_passed_on else replace(found, tunnel=tunnel)


def _passage(gue: bytes) -> str:
    """Fields of the header of a packet passed on; docs/second-chance.md draws it."""
    visited, origin, sender = int.from_bytes(gue[4:6], "big"), gue[6] >> 4, gue[7] >> 4
    asked = ",".join(str(index) for index in range(16) if visited >> index & 1)
    return f"{_PASSAGES[gue[7] & 3]} by {sender}, came in at {origin}, asked {asked}"


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
    run = Run(*RUN.unpack(data))
    if run.kind == RECEIVED:
        step = "decapsulated" if run.before_as == INSIDE else "underlay receives"
        return [_came(run, step)]
    if run.kind == SENT and run.after_as != OTHER:
        return [*_sender(run), _now(run, "out", _leaving(run))]
    if run.kind in (SENT, TAKEN):
        return [*_opened(run), _now(run, "out" if run.kind == SENT else "in", "delivered")]
    return _freed(run, kernel_reasons)


def _came(run: Run, step: str) -> Step:
    return Step(run.entered, run.cpu, run.came_in, "in", step, run.before_length, run.before)


def _now(run: Run, direction: str, step: str) -> Step:
    return Step(run.left, run.cpu, run.place, direction, step, run.length, run.after)


def _sender(run: Run) -> list[Step]:
    """Who sent it, when that was seen."""
    if not run.entered or run.before_as != OTHER:
        return []
    if run.after_as == PASSED_ON:
        return [_came(run, "client sends")]
    return [_came(run, "instance sends" if INSTANCE_INTERFACE.fullmatch(run.came_in) else "endpoint sends")]


def _opened(run: Run) -> list[Step]:
    """Its coming out of the tunnel, unless XDP took it out, which was told before."""
    if run.before_as not in (DATA, PASSED_ON) or not run.inside:
        return []
    return [Step(run.left, run.cpu, run.came_in, "in", "decapsulated", run.length, run.after)]


def _leaving(run: Run) -> str:
    fresh = run.data[7 if run.data[0] >> 4 == 6 else 8] == _FRESH_TTL
    if fresh and run.after_as == PASSED_ON:
        return _PASSAGES[_kind(run.data)]
    if not fresh or (run.before_as != OTHER and run.before_namespace == run.namespace):
        return "forwarded"
    return "encapsulated" if run.after_as == DATA else "underlay sends"


def _kind(data: bytes) -> int:
    """Of a packet passed on: the bits behind the outer headers and half of its own."""
    return data[(40 if data[0] >> 4 == 6 else 20) + 8 + 7] & 3


def _freed(run: Run, kernel_reasons: Mapping[int, str]) -> list[Step]:
    kernel = kernel_reasons.get(run.why, str(run.why)).removeprefix("SKB_DROP_REASON_")
    first = [*_opened(run), *_sender(run)]
    if run.ours < 0 and run.after_as == PASSED_ON and _PASSAGES[_kind(run.data)] == "found":
        return [*first, _now(run, "in", "learned")]
    if run.ours < 0 and _is_delivered(run, kernel):
        return [*first, _now(run, "in", "delivered")]
    reason = (kernel, "by the kernel, not by the tunnel's programs")
    if 0 <= run.ours < len(DROP_REASONS):
        reason = DROP_REASONS[run.ours]
    return [*first, replace(_now(run, _direction(run, kernel), "dropped"), reason=reason[0], text=reason[1])]


def _is_delivered(run: Run, kernel: str) -> bool:
    """Answers of ping go to sockets as copies; what lay in a socket that closes was taken, too."""
    if kernel == "NO_SOCKET":
        return run.inside and run.after.protocol in ("icmp", "icmp6")
    return kernel == "QUEUE_PURGE" and run.inside and not run.name.rstrip(b"\0")


def _direction(run: Run, kernel: str) -> str:
    """Received packets are on their way out when they are at another interface of the same host."""
    if kernel in ("TC_INGRESS", "TC_EGRESS"):
        return "in" if kernel == "TC_INGRESS" else "out"
    if not run.entered:
        return "out"
    moved = run.place != run.came_in and run.namespace == run.before_namespace
    return "out" if moved else "in"
