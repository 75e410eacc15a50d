"""Another version of the programs takes over while packets flow, also with maps of another shape."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from namespaces import eventually
from path_network import (
    INSIDE,
    INSIDE6,
    INSTANCE_INTERFACE,
    NODE,
    PUBLIC,
    TUNNEL,
    Network,
    Plan,
    hello,
    udp_socket,
)

from epic.bpf import records, syscalls
from epic.bpf.dataplane import Dataplane
from epic.bpf.filters import HOOKS
from epic.bpf.maps import Map

pytestmark = pytest.mark.root

SOURCES = Path(__file__).parents[2] / "bpf"
ROOM = re.compile(r"__uint\(max_entries, (\w+)\)")
RUNNING = re.compile(r"(?:prog/xdp|direct-action.*) id (\d+)")
PAUSE = 0.0005
ENDS = ("gateway", "workload")


@pytest.fixture
def network(bpffs: Path, object_file: Path, request: pytest.FixtureRequest) -> Iterator[Network]:
    """A network whose tunnel is up; it receives as the test's parameter `receive` says."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    built = Network(bpffs, object_file, Plan(receive=parameters.get("receive", "tc")))
    built.program()
    built.connect()
    yield built
    built.close()


class Echo:
    """Datagrams from the instance to the node and back, all the time."""

    def __init__(self, network: Network) -> None:
        self._near = udp_socket(network.instance, INSIDE, 1000)
        self._far = udp_socket(network.node, NODE, 2000)
        self._near.settimeout(0.2)
        self._far.settimeout(0.2)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=run) for run in (self._send, self._answer, self._receive)]
        self.sent, self.answered, self.back = 0, 0, 0

    def __enter__(self) -> Echo:
        for thread in self._threads:
            thread.start()
        assert eventually(lambda: self.back > 100)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.2)
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._near.close()
        self._far.close()

    @property
    def lost(self) -> int:
        """When it is over."""
        return self.sent - self.back

    def _send(self) -> None:
        while not self._stop.is_set():
            self._near.sendto(b"there", (str(NODE), 2000))
            self.sent += 1
            time.sleep(PAUSE)

    def _answer(self) -> None:
        for _, source in received(self._far, self._stop):
            self._far.sendto(b"and back", source)
            self.answered += 1

    def _receive(self) -> None:
        for _ in received(self._near, self._stop):
            self.back += 1


def received(opened: socket.socket, stop: threading.Event) -> Iterator[tuple[bytes, object]]:
    """Until nothing has come for a while after the end."""
    while True:
        try:
            yield opened.recvfrom(100)
        except TimeoutError:
            if stop.is_set():
                return


def version(directory: Path, *changed: str) -> Path:
    """The programs with more room in these maps."""
    copy = directory / "bpf"
    shutil.copytree(SOURCES, copy)
    header = copy / "maps.h"
    for name in changed:
        text = header.read_text(encoding="utf-8")
        end = text.index(f"}} {name} SEC")
        start = text.rindex("struct {", 0, end)
        wider = ROOM.sub(r"__uint(max_entries, 2 * (\1))", text[start:end])
        header.write_text(text[:start] + wider + text[end:], encoding="utf-8")
    made = directory / "gue.bpf.o"
    subprocess.run(["make", "-s", "-C", copy, f"OBJECT={made}", str(made)], check=True)
    return made


class Agents:
    """What both agents do when they start with other programs."""

    def __init__(self, network: Network, pins: Path, object_file: Path) -> None:
        self.network, self.pins = network, pins
        network.gateway, network.workload = (Dataplane(pins / end, object_file) for end in ENDS)

    def load(self) -> None:
        with self.network.epic:
            self.network.gateway.load()
        with self.network.node:
            self.network.workload.load()

    def fill(self) -> None:
        """What the first round does."""
        network, receive = self.network, self.network.plan.receive
        with network.epic:
            network.gateway.attach_underlay("up0", "gateway", receive)
            network.gateway.attach_instance(INSTANCE_INTERFACE, INSIDE, INSIDE6, PUBLIC)
        with network.node:
            network.workload.attach_underlay("up0", "workload", receive)
        network.program()

    def take_over(self) -> None:
        with self.network.epic:
            self.network.gateway.take_over()
        with self.network.node:
            self.network.workload.take_over()

    @property
    def due(self) -> tuple[bool, bool]:
        return self.network.gateway.due, self.network.workload.due

    def versions(self, end: str) -> list[Path]:
        return sorted(path for path in (self.pins / end).iterdir())

    def running(self) -> set[int]:
        """The programs that packets meet."""
        found: set[int] = set()
        for namespace, interfaces in (
            (self.network.epic, ("up0", INSTANCE_INTERFACE)),
            (self.network.node, ("up0",)),
        ):
            for interface in interfaces:
                shown = namespace.run(f"ip -d link show {interface}")
                shown += "".join(namespace.run(f"tc filter show dev {interface} {hook}") for hook in HOOKS)
                found |= {int(id_) for id_ in RUNNING.findall(shown)}
        return found

    def pinned(self) -> set[int]:
        """The programs of the present version, and of others."""
        return {pinned_id(pin) for end in ENDS for pin in (self.pins / end).glob("*/programs/*")}


def pinned_id(pin: Path) -> int:
    fd = syscalls.open_pinned(pin)
    try:
        return syscalls.program_info(fd).id
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("changed", "receive"),
    [
        (("endpoints",), "tc"),
        (("tunnels",), "tc"),
        (("locals", "instances"), "tc"),
        (("endpoints", "tunnels", "settings"), "xdp"),
    ],
)
def test_no_packet_is_lost_when_maps_begin_empty(
    network: Network, bpffs: Path, tmp_path: Path, changed: tuple[str, ...], receive: str
) -> None:
    agents = Agents(network, bpffs, version(tmp_path, *changed))
    peer = network.gateway.peer(TUNNEL)
    with Echo(network) as echo:
        before = agents.running()
        agents.load()
        assert agents.due == (True, True)
        time.sleep(0.1)
        agents.fill()
        assert agents.running() == before
        agents.take_over()
        assert agents.due == (False, False)
        time.sleep(0.1)
    assert echo.lost == 0
    assert network.gateway.peer(TUNNEL) == peer
    assert not agents.running() & before
    assert agents.running() <= agents.pinned()
    assert all(len(agents.versions(end)) == 1 for end in ENDS)
