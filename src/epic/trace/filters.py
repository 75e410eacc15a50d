# SPDX-License-Identifier: Apache-2.0
"""Which packets are wanted: the command line as data, and as definitions for the program in the kernel."""

from __future__ import annotations

import argparse
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

PROTOCOLS = {"tcp": (6, 6), "udp": (17, 17), "icmp": (1, 58)}
"""Numbers in IPv4 and IPv6."""


@dataclass(frozen=True)
class Filters:
    """All given ones must fit; addresses and ports are the inner packet's, of either end."""

    tunnel: int | None = None
    host: IPv4Address | IPv6Address | None = None
    port: int | None = None
    protocol: str | None = None
    interface: str | None = None
    drops: bool = False
    namespaces: tuple[int, ...] = ()
    """Inode numbers; none: all."""

    def definitions(self) -> list[str]:
        """Compiler flags."""
        flags = []
        if self.tunnel is not None:
            flags.append(f"-DWANT_TUNNEL={self.tunnel}")
        if self.host is not None:
            high, low = words(self.host)
            flags += [f"-DWANT_HOST_HIGH={high:#x}ULL", f"-DWANT_HOST_LOW={low:#x}ULL"]
        if self.port is not None:
            flags.append(f"-DWANT_PORT={self.port}")
        if self.protocol is not None:
            four, six = PROTOCOLS[self.protocol]
            flags += [f"-DWANT_PROTOCOL={four}", f"-DWANT_PROTOCOL6={six}"]
        if self.interface is not None:
            low, high = struct.unpack("=QQ", self.interface.encode().ljust(16, b"\0"))
            flags += [f"-DWANT_NAME_LOW={low:#x}ULL", f"-DWANT_NAME_HIGH={high:#x}ULL"]
        if self.host is not None or self.port is not None or self.protocol is not None:
            flags.append("-DWANT_INNER")
        places = "||".join(f"(n)=={inode}" for inode in self.namespaces) or "1"
        return [*flags, f"-DWANT_NAMESPACE(n)=({places})"] + (["-DWANT_DROPS"] if self.drops else [])


@dataclass(frozen=True)
class Options:
    """The command line."""

    filters: Filters
    count: int | None
    duration: float | None
    output: str
    rate: int
    pins: list[Path]


def words(address: IPv4Address | IPv6Address) -> tuple[int, int]:
    """As the program compares: two words in the machine's order, IPv4 as ::ffff:a.b.c.d."""
    packed = address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
    high, low = struct.unpack("=QQ", packed)
    return high, low


def _number(low: int, high: int) -> type[int]:
    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not between {low} and {high}")
        return value

    parse.__name__ = "number"
    return parse  # type: ignore[return-value]


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no time to trace for: more than 0 seconds is")
    return value


def _namespace(text: str) -> int:
    try:
        return Path(text).stat().st_ino
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot look at {text}: {error.strerror}") from error


def _interface(text: str) -> str:
    if not 0 < len(text.encode()) < 16:
        raise argparse.ArgumentTypeError(f"an interface's name has 1 to 15 bytes, {text!r} has not")
    return text


def parse(arguments: list[str]) -> Options:
    """Read the command line; a mistake ends the process with a usage message."""
    parser = argparse.ArgumentParser(
        "epic-trace", description="Follow packets through the tunnel's programs of this host, live."
    )
    add = parser.add_argument
    add("--tunnel", type=_number(0, 2**32 - 1), metavar="N", help="only this tunnel")
    add("--host", type=ip_address, metavar="ADDRESS", help="inner source or destination")
    add("--port", type=_number(0, 65535), metavar="P", help="inner source or destination port")
    add("--protocol", choices=sorted(PROTOCOLS), help="inner protocol")
    add("--interface", type=_interface, metavar="IF", help="where the packet came in or goes out")
    add(
        "--namespace",
        type=_namespace,
        action="append",
        metavar="FILE",
        help="network namespace, such as /run/netns/NAME; may be repeated (the one it is started in)",
    )
    add("--drops", action="store_true", help="only what is dropped")
    add("--count", type=_number(1, 2**63), metavar="N", help="end after N lines")
    add("--duration", type=_seconds, metavar="S", help="end after S seconds")
    add("-o", "--output", choices=("text", "json"), default="text")
    add("--rate", type=_number(1, 10**6), default=2000, metavar="N", help="events per second and CPU (2000)")
    add("--pins", type=Path, action="append", metavar="DIR", help="pins of the agent (/sys/fs/bpf/epic)")
    given = parser.parse_args(arguments)
    wanted = Filters(
        tunnel=given.tunnel,
        host=given.host,
        port=given.port,
        protocol=given.protocol,
        interface=given.interface,
        drops=given.drops,
        namespaces=tuple(given.namespace or [_namespace("/proc/self/ns/net")]),
    )
    pins = given.pins or [Path("/sys/fs/bpf/epic")]
    return Options(wanted, given.count, given.duration, given.output, given.rate, pins)
