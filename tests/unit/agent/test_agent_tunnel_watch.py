# SPDX-License-Identifier: Apache-2.0
"""Following a server's list of tunnels: a watch that was stopped is over, wherever it was."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Self

import pytest

from epic.agent.workload import tunnel_watch
from epic.agent.workload.tunnel_watch import TunnelWatch
from epic.controller.desired import EpicConnection

CONNECTION = EpicConnection("https://epic", "root", "user1", "password1", "c1")
Document = dict[str, object]


class Server:
    """Connections that take a while to be made, and then say nothing or something all the time."""

    def __init__(self, *, chatty: bool = False) -> None:
        self.chatty = chatty
        self.connecting = threading.Event()
        self.may_connect = threading.Event()
        self.connected = threading.Event()
        self.closed = threading.Event()

    # As EpicClient
    def __call__(self, *_: object) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()

    def watch(self, _path: str) -> Self:
        self.connecting.set()
        self.may_connect.wait(10)
        self.connected.set()
        return self

    # As Watch
    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Document:
        if self.chatty or self.closed.wait(10):
            if self.closed.is_set():
                raise StopIteration
            return {"tunnels": []}
        raise StopIteration

    def close(self) -> None:
        self.closed.set()


def watching(
    server: Server, monkeypatch: pytest.MonkeyPatch, heard: list[Document]
) -> tuple[TunnelWatch, Any]:
    monkeypatch.setattr(tunnel_watch, "EpicClient", server)
    watch = TunnelWatch(CONNECTION, "n1", None, lambda _, data: heard.append(data))
    return watch, watch._thread


async def ended(thread: threading.Thread, within: float = 60) -> bool:
    await asyncio.to_thread(thread.join, within)
    return not thread.is_alive()


async def test_a_watch_that_is_stopped_while_it_connects_ends_when_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, heard = Server(), list[Document]()
    watch, thread = watching(server, monkeypatch, heard)
    watch.start()
    await asyncio.to_thread(server.connecting.wait, 5)
    watch.stop()
    server.may_connect.set()
    assert await ended(thread)
    assert server.closed.is_set(), "with its connection"
    assert heard == []


async def test_a_watch_that_is_stopped_while_it_waits_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    server.may_connect.set()
    watch, thread = watching(server, monkeypatch, [])
    watch.start()
    await asyncio.to_thread(server.connected.wait, 5)
    while watch._watch is None:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.01)
    watch.stop()
    assert await ended(thread)


async def test_a_watch_that_is_stopped_while_it_hears_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(chatty=True)
    monkeypatch.setattr(server, "close", lambda: None)
    server.may_connect.set()
    heard: list[Document] = []
    watch, thread = watching(server, monkeypatch, heard)
    watch.start()
    while not heard:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.01)
    watch.stop()
    assert await ended(thread)
