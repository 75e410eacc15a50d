# SPDX-License-Identifier: Apache-2.0
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
    udp_socket,
)
from traffic import pings

from epic.bpf.dataplane import Dataplane
from epic.bpf.programs import syscalls
from epic.bpf.programs.filters import HOOKS

pytestmark = pytest.mark.root

SOURCES = Path(__file__).parents[2] / "bpf"
ROOM = re.compile(r"__uint\(max_entries, (\w+)\)")
RUNNING = re.compile(r"(?:prog/xdp|direct-action.*) id (\d+)")
PAUSE = 0.0005
SO_RCVBUFFORCE = 33
ENDS = ("gateway", "workload")
CHANGES = (
    ("endpoints",),
    ("tunnels",),
    ("endpoints", "tunnels"),
    ("endpoints", "tunnels", "settings"),
    ("drops",),
    ("slots",),
)
"""What has more room in each of the other versions of the programs."""


@pytest.fixture
def network(
    bpffs: Path, object_file: Path, versions: Versions, request: pytest.FixtureRequest
) -> Iterator[Network]:
    """A network whose tunnel is up; it receives as the test's parameter `receive` says.

    It is made when all versions are compiled: the NAT forgets a tunnel that is silent for half a minute.
    """
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
        for opened in (self._near, self._far):
            opened.settimeout(0.2)
            # A test that waits for the processor must not lose packets itself.
            opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=run) for run in (self._send, self._answer, self._receive)]
        self.sent, self.answered, self.back = 0, 0, 0

    def __enter__(self) -> Echo:
        for thread in self._threads:
            thread.start()
        if not eventually(lambda: self.back > 100):
            # Else they go on without a network, say that it is unreachable, and keep the process for ever.
            self._end()
            raise AssertionError(f"sent {self.sent}, answered {self.answered}, back {self.back}")
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.2)
        self._end()

    def _end(self) -> None:
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


class Versions:
    """The programs with more room in some maps, as `CHANGES` has them."""

    def __init__(self, directory: Path) -> None:
        self._made = {maps: compiled(directory / "-".join(maps), maps) for maps in CHANGES}

    def with_other(self, *maps: str) -> Path:
        """These have more room."""
        return self._made[maps]


def compiled(directory: Path, maps: tuple[str, ...]) -> Path:
    """The programs, with more room in these maps."""
    made = directory / "gue.bpf.o"
    shutil.copytree(SOURCES, directory)
    header = directory / "maps.h"
    text = header.read_text(encoding="utf-8")
    for name in maps:
        text = widen(text, name)
    header.write_text(text, encoding="utf-8")
    subprocess.run(["make", "-s", "-C", directory, f"OBJECT={made}", made], check=True)
    return made


def widen(text: str, name: str) -> str:
    """Give the map twice the room."""
    end = text.index(f"}} {name} SEC")
    start = text.rindex("struct {", 0, end)
    return text[:start] + ROOM.sub(r"__uint(max_entries, 2 * (\1))", text[start:end]) + text[end:]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    return Versions(tmp_path_factory.mktemp("versions"))


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
            network.gateway.attach_instance(INSTANCE_INTERFACE, INSIDE, INSIDE6, (PUBLIC,))
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

    def settled(self) -> bool:
        """Whether nothing but the present version is left."""
        alone = all(len(list((self.pins / end).iterdir())) == 1 for end in ENDS)
        return alone and self.due == (False, False) and self.running() <= self.pinned()

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
        """The programs of all versions."""
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
        (("endpoints", "tunnels", "settings"), "xdp"),
    ],
)
def test_no_packet_is_lost_when_maps_begin_empty(
    network: Network, bpffs: Path, versions: Versions, changed: tuple[str, ...], receive: str
) -> None:
    peer = network.gateway.peer(TUNNEL)
    agents = Agents(network, bpffs, versions.with_other(*changed))
    with Echo(network) as echo:
        before = agents.running()
        agents.load()
        assert agents.due == (True, True)
        time.sleep(0.1)
        agents.fill()
        assert agents.running() == before
        agents.take_over()
        time.sleep(0.1)
    assert echo.lost == 0
    assert network.gateway.peer(TUNNEL) == peer
    assert not any(network.dropped().values())
    assert agents.settled()


def test_an_agent_that_crashed_before_the_maps_were_filled_goes_on(
    network: Network, bpffs: Path, versions: Versions
) -> None:
    changed = versions.with_other("endpoints", "tunnels")
    with Echo(network) as echo:
        Agents(network, bpffs, changed).load()
        agents = Agents(network, bpffs, changed)
        agents.load()
        assert agents.due == (True, True)
        agents.fill()
        agents.take_over()
    assert echo.lost == 0
    assert agents.settled()


def test_a_version_that_never_took_over_is_passed_by(
    network: Network, bpffs: Path, versions: Versions
) -> None:
    """Its maps may be half filled: the next one takes those of the version that runs."""
    failed, newer = versions.with_other("tunnels"), versions.with_other("drops")
    with Echo(network) as echo:
        Agents(network, bpffs, failed).load()
        agents = Agents(network, bpffs, newer)
        agents.load()
    assert echo.lost == 0
    assert agents.settled()


def test_going_back_before_the_take_over_is_no_more_than_a_restart(
    network: Network, bpffs: Path, object_file: Path, versions: Versions
) -> None:
    failed = versions.with_other("tunnels")
    with Echo(network) as echo:
        Agents(network, bpffs, failed).load()
        agents = Agents(network, bpffs, object_file)
        agents.load()
    assert echo.lost == 0
    assert agents.settled()


def test_what_only_hellos_show_is_there_again_with_the_next_one(
    network: Network, bpffs: Path, versions: Versions
) -> None:
    agents = Agents(network, bpffs, versions.with_other("slots"))
    agents.load()
    agents.fill()
    agents.take_over()
    assert network.gateway.peer(TUNNEL) is None
    network.connect()
    assert pings(network, 2)
    assert agents.settled()


def test_programs_come_and_go_while_an_older_version_runs(
    network: Network, bpffs: Path, versions: Versions
) -> None:
    agents = Agents(network, bpffs, versions.with_other("tunnels"))
    network.epic.run("ip link add up1 type veth peer name far1")
    agents.load()
    (due,) = (agents.pins / "gateway").glob("*/due")
    new = due.with_name("programs") / "gateway_underlay_ingress"
    with network.epic:
        network.gateway.attach_underlay("up1", "gateway")
        assert f" id {pinned_id(new)} " in network.epic.run("tc filter show dev up1 ingress")
        for interface in ("up0", "up1"):
            network.gateway.detach_underlay(interface)
            assert "epic" not in network.epic.run(f"tc filter show dev {interface} ingress")


def test_unload_in_between_leaves_nothing(network: Network, bpffs: Path, versions: Versions) -> None:
    agents = Agents(network, bpffs, versions.with_other("tunnels"))
    agents.load()
    with network.epic:
        network.gateway.unload()
    with network.node:
        network.workload.unload()
    assert agents.running() == set()
    assert not any((bpffs / end).exists() for end in ENDS)
