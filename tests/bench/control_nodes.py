# SPDX-License-Identifier: Apache-2.0
"""Workload nodes as epic-control sees them: each follows its tunnels, and reports every ten seconds."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from control_process import ADMIN, API, ControlProcess

REPORT_SECONDS = 10.0
_BASIC = base64.b64encode(":".join(ADMIN).encode()).decode()
_OPEN_AT_ONCE = 20
_WAIT_SECONDS = 30.0


def tls(control: ControlProcess) -> ssl.SSLContext:
    """What trusts epic-control."""
    return ssl.create_default_context(cafile=str(control.pki / "ca.crt"))


class Watcher:
    """A stream of a workload node's tunnels."""

    def __init__(self, control: ControlProcess, account: str, node: str) -> None:
        self.account, self.node = account, node
        self.tunnels: list[int] = []
        self._control = control
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._event = asyncio.Event()
        self.heard_at = 0.0

    async def open(self, context: ssl.SSLContext) -> None:
        """Ask, and wait for the first list."""
        reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._control.port, ssl=context, limit=1 << 24
        )
        path = f"{API}/accounts/{self.account}/tunnels?cluster=c&node={self.node}&watch=true"
        self._writer.write(
            f"GET {path} HTTP/1.1\r\nHost: c\r\nAuthorization: Basic {_BASIC}\r\n\r\n".encode()
        )
        status = await reader.readline()
        assert b" 200 " in status, status
        self._task = asyncio.create_task(self._listen(reader))
        await self.hear()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        content = b""
        while chunk := await reader.read(1 << 16):
            content += chunk
            if b"\n\n" in chunk[-8:]:
                if b"data: " in content:
                    self.heard_at = time.perf_counter()
                    self._take(content)
                    self._event.set()
                content = b""

    def _take(self, content: bytes) -> None:
        if not self.tunnels:
            text = b"".join(part for part in content.split(b"\r\n") if b'"' in part)
            _, _, data = text.partition(b"data: ")
            self.tunnels = [int(found) for found in _numbers(data.decode(errors="replace"))]

    async def hear(self) -> float:
        """When the next list came, or one that has come since the last call."""
        async with asyncio.timeout(_WAIT_SECONDS):
            await self._event.wait()
        self._event.clear()
        return self.heard_at

    def close(self) -> None:
        """Go away."""
        if self._task is not None:
            self._task.cancel()
        if self._writer is not None:
            self._writer.transport.abort()

    async def report(self, context: ssl.SSLContext) -> None:
        """Tell how the tunnels are, over a connection of its own, as agents do."""
        said = [
            {"id": id_, "epochs": [1], "signing-epoch": 1, "rx-packets": 9, "hello-age": 1.0}
            for id_ in self.tunnels
        ]
        url = f"https://127.0.0.1:{self._control.port}"
        async with httpx.AsyncClient(base_url=url, auth=ADMIN, verify=context, timeout=60) as client:
            reply = await client.put(
                f"{API}/accounts/{self.account}/tunnels/status?cluster=c&node={self.node}",
                json={"tunnels": said, "drops": {}},
            )
            assert reply.status_code == 200, reply.text


def _numbers(data: str) -> list[int]:
    found: list[int] = []
    decoder = json.JSONDecoder()
    try:
        content, _ = decoder.raw_decode(data)
    except ValueError:
        return found
    items: list[dict[str, Any]] = content.get("tunnels", []) if isinstance(content, dict) else []
    return [int(item["id"]) for item in items if "id" in item]


async def open_all(watchers: list[Watcher], context: ssl.SSLContext) -> None:
    """Open them, some at a time."""
    for start in range(0, len(watchers), _OPEN_AT_ONCE):
        await asyncio.gather(*(watcher.open(context) for watcher in watchers[start : start + _OPEN_AT_ONCE]))


async def event_times(
    write: Callable[[int], Awaitable[httpx.Response]], touched: Callable[[int], list[Watcher]], count: int
) -> list[float]:
    """From each write until each watcher that it touches has the new list, in seconds."""
    times = []
    for number in range(count):
        begun = time.perf_counter()
        reply = await write(number)
        assert reply.status_code == 302, reply.text
        times += [await watcher.hear() - begun for watcher in touched(number)]
    return times


async def live_idle(watchers: list[Watcher], context: ssl.SSLContext, seconds: float) -> None:
    """Let each node report every ten seconds, spread evenly, for a while."""
    end = time.monotonic() + seconds

    async def reports(number: int, watcher: Watcher) -> None:
        await asyncio.sleep(REPORT_SECONDS * number / len(watchers))
        while time.monotonic() < end:
            await asyncio.gather(watcher.report(context), asyncio.sleep(REPORT_SECONDS))

    await asyncio.gather(*(reports(number, watcher) for number, watcher in enumerate(watchers)))
