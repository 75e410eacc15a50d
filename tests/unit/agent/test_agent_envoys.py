# SPDX-License-Identifier: Apache-2.0
"""Speaking to Envoys on their admin sockets.

- The state is asked for on one connection; a broken one is noticed at once; our own trouble is not its.
- An Envoy is a tenant's: neither a link in its socket's place nor what it sends gets it anything.
- A gateway that drains: health fails, the address goes, connections get their time; told to, it serves again.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from epic.agent.gateway.envoy import drain as drain_module
from epic.agent.gateway.envoy.admin import fail_health, request, sum_connections
from epic.agent.gateway.envoy.drain import Drainer, Order
from epic.agent.gateway.envoy.ready_check import ReadyCheck, parse

WEB = "shop.web"


class Admin:
    """An Envoy's admin interface."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.state = "LIVE"
        self.connections = 0
        self.answers = True
        self.asked: list[str] = []
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.socket)

    def die(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        self.socket.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                path = head.split(" ")[1]
                self.asked.append(path)
                if not self.answers:
                    break
                body = self._answer(path)
                writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
                if "connection: close" in head:
                    break
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    def _answer(self, path: str) -> str:
        if path == "/healthcheck/fail":
            self.state = "DRAINING"
        elif path == "/healthcheck/ok":
            self.state = "LIVE"
        elif path.startswith("/stats"):
            return f"listener.0.0.0.0_80.downstream_cx_active: {self.connections}\n"
        return f"{self.state}\n"


@pytest.fixture
async def envoy(tmp_path: Path) -> AsyncIterator[Admin]:
    admin = Admin(tmp_path / "admin.sock")
    await admin.start()
    yield admin
    admin.die()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the condition is another's
            await asyncio.sleep(0.005)


@asynccontextmanager
async def watching(socket: Path) -> AsyncIterator[list[str]]:
    states: list[str] = []
    task = asyncio.create_task(ReadyCheck(socket, states.append).run())
    yield states
    task.cancel()
    await asyncio.wait([task])


async def test_an_envoys_death_is_noticed_without_asking(envoy: Admin) -> None:
    async with watching(envoy.socket) as states:
        await until(lambda: states == ["LIVE"])
        envoy.die()
        await until(lambda: states[1:2] == [""])
    assert envoy.asked == ["/ready"]


async def test_an_envoy_is_asked_at_once_when_that_matters(envoy: Admin) -> None:
    states: list[str] = []
    check = ReadyCheck(envoy.socket, states.append)
    task = asyncio.create_task(check.run())
    await until(lambda: states == ["LIVE"])
    envoy.state = "DRAINING"
    check.ask()
    async with asyncio.timeout(0.5):
        await until(lambda: states[1:2] == ["DRAINING"])
    task.cancel()
    await asyncio.wait([task])


async def test_an_envoy_is_found_when_it_comes(tmp_path: Path) -> None:
    envoy = Admin(tmp_path / "admin.sock")
    async with watching(envoy.socket) as states:
        await until(lambda: bool(states))
        await envoy.start()
        await until(lambda: "LIVE" in states)
    envoy.die()


async def test_an_agent_without_room_for_connections_says_nothing_of_its_envoys(
    envoy: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_room(*_: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_unix_connection", no_room)
    async with watching(envoy.socket) as states:
        await asyncio.sleep(0.2)
    assert states == []


class Endless:
    """An Envoy that was taken over: it answers whatever it likes, asked or not, and without end."""

    def __init__(self, head: bytes, part: bytes) -> None:
        self._head, self._part = head, part
        self.accepted = self.sent = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        with suppress(OSError, EOFError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self._head)
            while True:
                writer.write(self._part)
                self.sent += len(self._part)
                await writer.drain()
        writer.close()


_ENDLESS_BODY = Endless(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", bytes(1 << 16))
_ENDLESS_HEAD = Endless(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 1000)
_ENDLESS_CHUNKS = Endless(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 1000)
_ENDLESS_ANSWERS = Endless(b"", b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nLIVE")


@pytest.mark.parametrize("envoy", [_ENDLESS_BODY, _ENDLESS_HEAD, _ENDLESS_CHUNKS, _ENDLESS_ANSWERS])
async def test_what_an_envoy_sends_without_end_is_not_taken(tmp_path: Path, envoy: Endless) -> None:
    server = await asyncio.start_unix_server(envoy.serve, tmp_path / "admin.sock")
    async with watching(tmp_path / "admin.sock") as states:
        await until(lambda: envoy.accepted > 2)
    server.close()
    assert envoy.sent < 10 << 20
    assert len(states) <= 2 * envoy.accepted


async def test_an_envoy_that_comes_and_goes_is_asked_ever_later(tmp_path: Path) -> None:
    times: list[float] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        times.append(asyncio.get_running_loop().time())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nLIVE\n")
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "admin.sock")
    async with watching(tmp_path / "admin.sock") as states:
        await until(lambda: len(times) == 5)
    server.close()
    assert times[-1] - times[0] > 1.4
    assert states[:2] == ["LIVE", ""]


async def test_an_answer_without_end_to_a_single_request_is_an_error(tmp_path: Path) -> None:
    envoy = Endless(b"HTTP/1.1 200 OK\r\n\r\n", bytes(1 << 16))
    server = await asyncio.start_unix_server(envoy.serve, tmp_path / "admin.sock")
    with pytest.raises(ValueError, match="more than"):
        await request(tmp_path / "admin.sock", "GET", "/stats")
    server.close()


async def test_a_link_in_the_place_of_the_socket_does_not_lead_to_another_envoy(
    envoy: Admin, tmp_path: Path
) -> None:
    link = tmp_path / "other" / "admin.sock"
    link.parent.mkdir()
    link.symlink_to(envoy.socket)
    with pytest.raises(OSError, match="non-socket"):
        await fail_health(link)
    async with watching(link) as states:
        await until(lambda: len(states) > 1)
    assert set(states) == {""}
    assert envoy.asked == []


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nLIVE\n", "LIVE"),
        (b"HTTP/1.1 503 X\r\nContent-Length: 8\r\n\r\nDRAINING", "DRAINING"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nLIVE\n\r\n0\r\n\r\n", "LIVE"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nLIV", None),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nLI", None),
        (b"HTTP/1.1 200 OK\r\ncont", None),
    ],
)
def test_answers_are_read_when_they_are_whole(answer: bytes, state: str | None) -> None:
    assert parse(answer) == state


@pytest.mark.parametrize("answer", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nLIVE"])
def test_what_is_no_answer_is_an_error(answer: bytes) -> None:
    with pytest.raises(ValueError, match="answer"):
        parse(answer)


def test_connections_are_those_of_clients() -> None:
    stats = (
        "listener.203.0.113.7_80.downstream_cx_active: 3\n"
        "listener.203.0.113.7_80.worker_0.downstream_cx_active: 3\n"
        "listener.203.0.113.7_443.downstream_cx_active: 1\n"
        "listener.admin.downstream_cx_active: 2\n"
        "listener.admin.main_thread.downstream_cx_active: 2\n"
        "http.admin.downstream_cx_active: 2\n"
    )
    assert sum_connections(stats) == 4


class Draining:
    """A drainer, and the steps that it told of."""

    def __init__(self, envoy: Admin) -> None:
        self.drainer = Drainer(lambda _: envoy.socket, lambda: None)

    def order(self, seconds: float | None) -> None:
        self.drainer.set_orders({} if seconds is None else {WEB: Order(seconds)}, [WEB])

    @property
    def steps(self) -> tuple[bool, bool]:
        """Whether it is withdrawn, and whether it has ended."""
        return WEB in self.drainer.withdrawn, WEB in self.drainer.ended


@pytest.fixture
async def draining(envoy: Admin, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Draining]:
    monkeypatch.setattr(drain_module, "ANNOUNCED_SECONDS", 0.1)
    monkeypatch.setattr(drain_module, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(drain_module, "QUIET_SECONDS", 0.1)
    found = Draining(envoy)
    yield found
    found.drainer.close()


async def test_connections_get_their_time(envoy: Admin, draining: Draining) -> None:
    envoy.connections = 2
    draining.order(60)
    await until(lambda: envoy.state == "DRAINING")
    assert draining.drainer.hear(WEB, "DRAINING")
    assert draining.steps == (False, False)
    await until(lambda: draining.steps == (True, False))
    await asyncio.sleep(0.1)
    assert draining.steps == (True, False)
    envoy.connections = 0
    await until(lambda: draining.steps == (True, True))


async def test_an_envoy_that_is_too_busy_to_answer_has_its_connections_still(
    envoy: Admin, draining: Draining
) -> None:
    envoy.connections = 2
    draining.order(60)
    await until(lambda: draining.steps == (True, False))
    envoy.answers = False
    await asyncio.sleep(0.3)
    assert draining.steps == (True, False)
    envoy.die()
    await until(lambda: draining.steps == (True, True))


async def test_a_connection_that_comes_after_the_withdrawal_gets_its_time_too(
    envoy: Admin, draining: Draining, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "QUIET_SECONDS", 60)
    draining.order(90)
    await until(lambda: draining.steps == (True, False))
    envoy.connections = 1
    monkeypatch.setattr(drain_module, "QUIET_SECONDS", 0.1)
    await asyncio.sleep(0.3)
    assert draining.steps == (True, False)
    envoy.connections = 0
    await until(lambda: draining.steps == (True, True))


async def test_connections_that_take_longer_are_not_waited_for(envoy: Admin, draining: Draining) -> None:
    envoy.connections = 2
    draining.order(0.2)
    await until(lambda: draining.steps == (True, True))


@pytest.mark.parametrize("alive", [True, False])
async def test_without_time_it_ends_at_once(envoy: Admin, draining: Draining, alive: bool) -> None:
    envoy.connections = 2
    if not alive:
        envoy.die()
    draining.order(0)
    await until(lambda: draining.steps == (True, True))


async def test_a_gateway_serves_again_when_it_is_not_to_drain_any_more(
    envoy: Admin, draining: Draining
) -> None:
    draining.order(60)
    await until(lambda: draining.steps == (True, True))
    draining.order(None)
    await until(lambda: envoy.state == "LIVE")
    assert draining.steps == (False, False)


async def test_an_envoy_that_drains_for_nobody_serves_again_after_a_while(
    envoy: Admin, draining: Draining, monkeypatch: pytest.MonkeyPatch
) -> None:
    envoy.state = "DRAINING"
    assert not draining.drainer.hear(WEB, "DRAINING")
    await asyncio.sleep(0.05)
    assert envoy.state == "DRAINING"
    monkeypatch.setattr(drain_module, "UNORDERED_SECONDS", 0.01)
    assert not draining.drainer.hear(WEB, "DRAINING")
    await until(lambda: envoy.state == "LIVE")
    assert draining.drainer.hear(WEB, "LIVE")


async def test_an_envoy_that_was_started_meanwhile_drains_too(envoy: Admin, draining: Draining) -> None:
    envoy.connections = 1
    draining.order(60)
    await until(lambda: envoy.state == "DRAINING")
    envoy.state = "LIVE"
    await until(lambda: envoy.state == "DRAINING")
