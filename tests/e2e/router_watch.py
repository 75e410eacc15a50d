# SPDX-License-Identifier: Apache-2.0
"""Watches from the host `router` where it leads connections to a gateway; nothing but Python's own library.

Argument: ADDRESS. Prints "ready", watches until its input ends, then prints one JSON line: {"next_hops":
[[time, number]], "moved": [{"port", "opened", "at"}], "lost"}. `moved` are the connections, by the client's
port and the time of their SYN, of which a later packet went to another node than an earlier one, and when the
first such packet did; `lost` counts packets that were not seen.
"""

from __future__ import annotations

import ctypes
import json
import selectors
import socket
import struct
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field

ETH_P_ALL, ETH_P_IP = 3, 0x0800
PACKET_OUTGOING = 4
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_ATTACH_FILTER, SO_RCVBUFFORCE, SO_TIMESTAMPNS = 26, 33, 35
PACKET_TYPE = 0xFFFFF000 + 4  # the kernel's own value beside the frame: SKF_AD_OFF + SKF_AD_PKTTYPE
SYN, ACK = 0x02, 0x10
BUFFER = 8 << 20


@dataclass(frozen=True)
class Moved:
    """A connection that was led elsewhere."""

    port: int
    opened: float
    at: float


@dataclass
class Connection:
    """A connection under way: the sequence number of its SYN and the nodes that it was led to."""

    sequence: int
    opened: float
    nodes: set[bytes] = field(default_factory=set)


class Connections:
    """Follows connections by the client's port."""

    def __init__(self) -> None:
        self.moved: list[Moved] = []
        self._open: dict[int, Connection] = {}

    def take(self, frame: bytes, at: float) -> None:
        """A frame of TCP over IPv4 on its way to a node."""
        tcp = 14 + (frame[14] & 15) * 4
        port, _, sequence, _, _, flags = struct.unpack_from("!HHIIBB", frame, tcp)
        known = self._open.get(port)
        begins = flags & (SYN | ACK) == SYN
        if known is None or (begins and known.sequence != sequence):
            known = self._open[port] = Connection(sequence, at)
        node = frame[:6]
        if known.nodes and node not in known.nodes:
            self.moved.append(Moved(port, known.opened, at))
        known.nodes.add(node)


def open_capture(address: str) -> socket.socket:
    """All frames of TCP over IPv4 to the address that leave this host."""
    capture = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wanted = int.from_bytes(socket.inet_aton(address), "big")
    # classic BPF: direction, ethertype, protocol and destination must fit
    rows = (
        (0x30, 0, 0, PACKET_TYPE),
        (0x15, 0, 7, PACKET_OUTGOING),
        (0x28, 0, 0, 12),
        (0x15, 0, 5, ETH_P_IP),
        (0x30, 0, 0, 23),
        (0x15, 0, 3, socket.IPPROTO_TCP),
        (0x20, 0, 0, 30),
        (0x15, 0, 1, wanted),
        (0x06, 0, 0, 128),
        (0x06, 0, 0, 0),
    )
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *row) for row in rows))
    capture.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(rows), ctypes.addressof(program))
    )
    capture.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    # When it was sent: this script may be late, and what the client saw is compared with it.
    capture.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    capture.setblocking(False)
    return capture


def count_next_hops(address: str) -> int:
    """How many nodes the router knows for the address."""
    shown = subprocess.run(["ip", "route", "show", address], capture_output=True, text=True, check=False)
    return shown.stdout.count("via ")


def drain(capture: socket.socket, connections: Connections) -> None:
    """Take what was captured."""
    while True:
        try:
            frame, ancillary, _, _ = capture.recvmsg(256, 64)
        except BlockingIOError:
            return
        seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
        connections.take(frame, seconds + nanoseconds / 1e9)


def main() -> None:
    """Watch until the input ends."""
    address = sys.argv[1]
    connections, next_hops = Connections(), [(time.time(), count_next_hops(address))]
    capture = open_capture(address)
    with subprocess.Popen(["ip", "monitor", "route"], stdout=subprocess.PIPE) as monitor:
        assert monitor.stdout is not None
        selector = selectors.DefaultSelector()
        for source in (capture, monitor.stdout, sys.stdin):
            selector.register(source, selectors.EVENT_READ)
        print("ready", flush=True)
        ended = False
        while not ended:
            for key, _ in selector.select():
                if key.fileobj is capture:
                    drain(capture, connections)
                elif key.fileobj is monitor.stdout:
                    monitor.stdout.read1(65536)
                    count = count_next_hops(address)
                    if count != next_hops[-1][1]:
                        next_hops.append((time.time(), count))
                else:
                    ended = True
        monitor.terminate()
    _, lost = struct.unpack("II", capture.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    moved = [asdict(one) for one in connections.moved]
    print(json.dumps({"next_hops": next_hops, "moved": moved, "lost": lost}), flush=True)


if __name__ == "__main__":
    main()
