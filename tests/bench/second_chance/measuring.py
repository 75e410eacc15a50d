# SPDX-License-Identifier: Apache-2.0
"""What is measured between the client and one instance, without Envoy."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bed import PUBLIC, Bed
from client import bound
from namespaces import Namespace
from networks import DEFAULT, NONE, Offloads, receive_on_first_processor
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from steering import ALL, SYN, Steering
from testrun import Program

WAYS = ("off", "hit", "passed on")
CLIENT_CPU, SERVER_CPU = 0, 1
REPEATED = 1_000_000
_PORT = "7001"
_PATIENCE = 60
_TCP_REPAIR, _TCP_REPAIR_QUEUE, _TCP_QUEUE_SEQ = 19, 20, 21
_RECEIVE_QUEUE, _SEND_QUEUE, _REPAIR_OFF = 1, 2, -1
_ADDRESSED = "00:00:00:00:00:01"


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    rounds: int
    seconds: float
    pings: int
    flood: int
    """Stray packets a second."""


class Say(Protocol):
    """Tells how far the measuring is."""

    def __call__(self, text: str) -> None: ...


class Ways:
    """A connection's packets to its owner, with second chance off or on, or by one other node."""

    def __init__(self, bed: Bed, steering: Steering, program: Path) -> None:
        self._bed, self._steering, self._program = bed, steering, str(program)
        for namespace in (bed.client, bed.edge, bed.router, *self._ends()):
            receive_on_first_processor(namespace)

    def _ends(self) -> list[Namespace]:
        nodes = self._bed.nodes[:2]
        return [node.space for node in nodes] + [node.instance for node in nodes]

    def choose(self, way: str) -> None:
        """One of WAYS."""
        self._bed.unlink()
        if way != "off":
            self._bed.link([0, 1])
        self._steering.to((SYN, 0), (ALL, 1 if way == "passed on" else 0))

    def offload(self, features: Offloads) -> None:
        """Set those of all interfaces that packets pass."""
        for namespace, interfaces in self._interfaces():
            for interface in interfaces:
                namespace.run(f"ethtool -K {interface} {features.underlay}")

    def _interfaces(self) -> list[tuple[Namespace, list[str]]]:
        bed = self._bed
        found = [(bed.client, ["eth0"]), (bed.edge, ["in", "out"]), (bed.router, ["edge", "n0", "n1"])]
        for node in bed.nodes[:2]:
            found += [(node.space, ["up0", node.interface]), (node.instance, ["eth0"])]
        return found

    def stream(self, way: str, seconds: float) -> float:
        """Gbit/s from the client to the instance."""
        self.choose(way)
        arguments = ["tcp-blast", str(PUBLIC), _PORT, str(seconds), "1"]
        _, received = self._run(["tcp-sink", _PORT, "1"], arguments, SERVER_CPU)
        return float(received["gbits"])

    def round_trip(self, way: str, pings: int) -> float:
        """Median of a request and its answer in microseconds, both ends on one processor."""
        self.choose(way)
        arguments = ["tcp-ping", str(PUBLIC), _PORT, str(pings)]
        sent, _ = self._run(["tcp-echo", _PORT], arguments, CLIENT_CPU)
        return float(sent["p50"])

    def _run(
        self, server: list[str], client: list[str], server_cpu: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What client and server printed."""
        serving = self._start(self._bed.nodes[0].instance, server_cpu, server)
        assert serving.stdout is not None
        try:
            serving.stdout.readline()
            sending = self._start(self._bed.client, CLIENT_CPU, client)
            sent, _ = sending.communicate(timeout=_PATIENCE)
        finally:
            time.sleep(0.05)  # what is on the way arrives
            serving.terminate()
            received, _ = serving.communicate(timeout=_PATIENCE)
        if sending.returncode:
            raise RuntimeError(f"{' '.join(client)} failed")
        return json.loads(sent), json.loads(received)

    def _start(self, namespace: Namespace, cpu: int, arguments: list[str]) -> subprocess.Popen[str]:
        with namespace:
            return subprocess.Popen([self._program, str(cpu), *arguments], stdout=subprocess.PIPE, text=True)


def cost_of_hits(bed: Bed, steering: Steering) -> dict[str, int]:
    """Nanoseconds of the program for a packet that has its socket here: by BPF_PROG_TEST_RUN, warm."""
    (pin,) = bed.nodes[0].pins.glob("*/programs/gateway_underlay_ingress")
    node = bed.nodes[0]
    steering.to((ALL, 0))
    with node.instance:
        listener = socket.create_server((str(PUBLIC), int(_PORT)))
    client, port = bound(bed, PUBLIC)
    client.connect((str(PUBLIC), int(_PORT)))
    with node.space:
        program = Program(pin, socket.if_nametoindex("up0"))
    found = {}
    with listener, client, _numbers(client) as (sequence, acknowledged):
        segment = TCP(sport=port, dport=int(_PORT), flags="A", seq=sequence, ack=acknowledged)
        own = client.getsockname()[0]
        packet = bytes(Ether(dst=_ADDRESSED, src=_ADDRESSED) / IP(src=own, dst=str(PUBLIC)) / segment)
        for way in ("off", "hit"):
            bed.unlink()
            if way == "hit":
                bed.link([0, 1])
            with node.space:
                found[way] = min(program.cost(packet, REPEATED) for _ in range(5))
    program.close()
    return found


@contextmanager
def _numbers(client: socket.socket) -> Iterator[tuple[int, int]]:
    """The next sequence number of a connection, and what it acknowledges."""
    client.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
    numbers = []
    for queue in (_SEND_QUEUE, _RECEIVE_QUEUE):
        client.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_QUEUE, queue)
        numbers.append(client.getsockopt(socket.IPPROTO_TCP, _TCP_QUEUE_SEQ) & 0xFFFFFFFF)
    client.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _REPAIR_OFF)
    yield numbers[0], numbers[1]


def throughput(ways: Ways, extent: Extent, say: Say) -> dict[tuple[str, str], list[float]]:
    """By offloads and way, a value a round; the ways are measured in turn."""
    found: dict[tuple[str, str], list[float]] = {}
    for name, features in (("on", DEFAULT), ("off", NONE)):
        ways.offload(features)
        for number in range(extent.rounds):
            for way in (*WAYS[number % 3 :], *WAYS[: number % 3]):
                found.setdefault((name, way), []).append(ways.stream(way, extent.seconds))
            say(f"throughput, offloads {name}: round {number + 1} of {extent.rounds}")
    ways.offload(DEFAULT)
    return found


def latency(ways: Ways, extent: Extent, say: Say) -> dict[str, list[float]]:
    """By way, a value a round."""
    found: dict[str, list[float]] = {}
    for number in range(extent.rounds):
        for way in (*WAYS[number % 3 :], *WAYS[: number % 3]):
            found.setdefault(way, []).append(ways.round_trip(way, extent.pings))
        say(f"latency: round {number + 1} of {extent.rounds}")
    return found
