# SPDX-License-Identifier: Apache-2.0
"""How a gateway stops being announced when its Envoy stops: before it closes its listeners, and for good."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_namespaces import Namespace

ROLE = Path(__file__).parents[3] / "roles/gateway_node/files"
PUBLIC, OTHER = "203.0.113.7", "203.0.113.8"

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def node() -> Iterator[Namespace]:
    """A node that announces two gateways; a route of somebody else's is like theirs but for its protocol."""
    namespace = Namespace()
    for address in (PUBLIC, OTHER):
        namespace.run(f"ip route add blackhole {address}/32 proto 50")
    namespace.run(f"ip route add blackhole {PUBLIC}/32 proto static metric 5")
    yield namespace
    namespace.close()


class Admin(threading.Thread):
    """Envoy's admin interface, as far as it is asked; `requests` are the first lines of what it heard."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path, self.requests = path, list[str]()
        self.ready = True
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self.start()

    def run(self) -> None:
        while True:
            client, _ = self._server.accept()
            with client:
                self.requests.append(client.recv(4096).partition(b"\r\n")[0].decode())
                self.ready = False
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\nOK\n")


def withdraw(node: Namespace, socket_path: Path, *addresses: str) -> float:
    """Run epic-withdraw; the seconds it took."""
    begin = time.monotonic()
    node.run(f"python3 -IS {ROLE / 'epic-withdraw'} {' '.join(addresses or (PUBLIC,))} {socket_path}")
    return time.monotonic() - begin


def announce_again(node: Namespace) -> None:
    """What the agent does about a flag route that is missing."""
    with node:
        command = ["ip", "route", "add", "blackhole", PUBLIC, "proto", "50"]
        subprocess.run(command, capture_output=True, check=False)


def announced(node: Namespace) -> set[str]:
    return {line.split()[1] for line in node.run("ip route show proto 50").splitlines()}


def test_envoy_is_told_and_the_route_goes_and_no_other(node: Namespace, tmp_path: Path) -> None:
    admin = Admin(tmp_path / "admin.sock")
    assert withdraw(node, admin.path) < 2
    assert admin.requests == ["POST /healthcheck/fail HTTP/1.1"]
    assert announced(node) == {OTHER}
    assert node.run("ip route show proto static") != ""


def test_an_agent_that_announces_it_again_does_not_prevail(node: Namespace, tmp_path: Path) -> None:
    """As an agent does that has not yet noticed that Envoy is no longer ready."""
    admin = Admin(tmp_path / "admin.sock")
    stop = threading.Event()

    def announce() -> None:
        until = time.monotonic() + 0.4
        while time.monotonic() < until and not stop.is_set():
            announce_again(node)
            time.sleep(0.02)

    agent = threading.Thread(target=announce)
    agent.start()
    withdraw(node, admin.path)
    stop.set()
    agent.join()
    assert announced(node) == {OTHER}


def test_envoy_need_not_answer(node: Namespace, tmp_path: Path) -> None:
    assert withdraw(node, tmp_path / "none.sock") < 2
    assert announced(node) == {OTHER}


def test_a_link_of_the_envoys_making_leads_to_no_other_envoy(node: Namespace, tmp_path: Path) -> None:
    other = Admin(tmp_path / "admin.sock")
    link = tmp_path / "link.sock"
    link.symlink_to(other.path)
    assert withdraw(node, link) < 2
    assert announced(node) == {OTHER}
    assert other.requests == []


def test_it_ends_even_if_the_route_comes_back_for_ever(node: Namespace, tmp_path: Path) -> None:
    stop = threading.Event()

    def announce() -> None:
        while not stop.is_set():
            announce_again(node)

    agent = threading.Thread(target=announce)
    agent.start()
    took = withdraw(node, tmp_path / "none.sock")
    stop.set()
    agent.join()
    assert took < 5


def test_what_is_withdrawn_already_is_looked_at_once_and_leaves_envoy_alone(
    node: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = Admin(tmp_path / "admin.sock")
    node.run(f"ip route del blackhole {PUBLIC}/32 proto 50")
    noting = tmp_path / "ip"
    noting.write_text(f'#!/bin/sh\necho "$3" >> {tmp_path}/calls\nexec {shutil.which("ip")} "$@"\n')
    noting.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    withdraw(node, admin.path)
    assert (tmp_path / "calls").read_text() == "show\n"
    assert admin.requests == []


def test_what_the_unit_runs_after_envoy_removes_just_the_gateways_route(node: Namespace) -> None:
    unit = (ROLE / "epic-envoy@.service").read_text(encoding="utf-8")
    node.run("ip -6 route add blackhole 2001:db8::7 proto 50")
    (line,) = [line for line in unit.splitlines() if line.startswith("ExecStopPost=")]
    prefix, entered, command = line.partition("--net=/proc/1/ns/net ")
    assert (prefix, entered) == ("ExecStopPost=-+/usr/bin/nsenter ", "--net=/proc/1/ns/net ")
    for _ in range(2):
        # As systemd makes words of it.
        node.run(command.replace("$$", "$").replace("$PUBLIC", f"{PUBLIC} 2001:db8::7"))
    assert announced(node) == {OTHER}
    assert node.run("ip -6 route show proto 50") == ""
    assert node.run("ip route show proto static") != ""


def test_all_addresses_of_a_gateway_go(node: Namespace, tmp_path: Path) -> None:
    node.run(
        "ip -6 route add blackhole 2001:db8::7 proto 50", "ip -6 route add blackhole 2001:db8::8 proto 50"
    )
    admin = Admin(tmp_path / "admin.sock")
    withdraw(node, admin.path, PUBLIC, "2001:db8::7")
    assert admin.requests == ["POST /healthcheck/fail HTTP/1.1"]
    assert announced(node) == {OTHER}
    left = node.run("ip -6 route show proto 50").splitlines()
    assert [line.split()[1] for line in left] == ["2001:db8::8"]
