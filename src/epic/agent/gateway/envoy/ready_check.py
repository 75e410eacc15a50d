# SPDX-License-Identifier: Apache-2.0
"""Asking an Envoy on its admin socket how it is, on one connection.

The connection breaks the moment the Envoy dies, so death is noticed without waiting for the next question. An
Envoy that lives is asked seldom: a node may have a thousand.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path

from epic.agent.gateway.envoy.admin_socket import opened

ABSENT = ""
"""The state of an Envoy that does not answer."""

_LIVE = "LIVE"
_LIVE_SECONDS = 1.0
_BEGINNING_SECONDS = 0.05
_PAUSES = {_LIVE: _LIVE_SECONDS, "DRAINING": 0.25}
# After so long without an Envoy it is looked for less often.
_PATIENCE_SECONDS = 15.0
_MISSING_SECONDS = 0.25
_ANSWER_SECONDS = 2.0
# Many times what Envoy's answer has.
_MOST_BYTES = 1 << 14
_REQUEST = b"GET /ready HTTP/1.1\r\nhost: envoy\r\n\r\n"
# The agent's own trouble says nothing of an Envoy.
_OWN = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN}


class ReadyCheck:
    """Asks one Envoy for its state and calls `tell` with each answer (`LIVE`, `DRAINING`, ...).

    No answer is `ABSENT`. When the agent itself has no room for a connection nothing is told.
    """

    def __init__(self, socket: Path, tell: Callable[[str], None]) -> None:
        self._socket = socket
        self._tell = tell
        self._asking: _Asking | None = None

    def ask(self) -> None:
        """Ask at once, if there is a connection; else that is tried often anyway."""
        if self._asking is not None:
            self._asking.ask()

    async def run(self) -> None:
        """Ask until cancelled."""
        loop = asyncio.get_running_loop()
        missing_since = loop.time()
        pause = _BEGINNING_SECONDS
        while True:
            began = loop.time()
            try:
                if await self._follow():
                    missing_since = loop.time()
                    # One that comes and goes all the time is not announced and withdrawn as often.
                    hasty = missing_since - began < _LIVE_SECONDS
                    pause = min(2 * pause, _LIVE_SECONDS) if hasty else _BEGINNING_SECONDS
            except OSError as error:
                if error.errno in _OWN:
                    await asyncio.sleep(_LIVE_SECONDS)
                    continue
            self._tell(ABSENT)
            patient = loop.time() - missing_since < _PATIENCE_SECONDS
            await asyncio.sleep(pause if patient else max(pause, _MISSING_SECONDS))

    async def _follow(self) -> bool:
        """Until the connection breaks; whether the Envoy lived."""
        loop = asyncio.get_running_loop()
        with opened(self._socket) as way:
            async with asyncio.timeout(_ANSWER_SECONDS):
                made = await loop.create_unix_connection(lambda: _Asking(self._tell), way)
        transport, self._asking = made
        try:
            await self._asking.ended
            return self._asking.was_live
        finally:
            self._asking = None
            transport.abort()


class _Asking(asyncio.Protocol):
    """One connection: asks, tells, and asks again after a while, until it breaks or an answer is late."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._received = b""
        self._awaited = 0
        self._transport: asyncio.Transport | None = None
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.was_live = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport
        self.ask()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._received += data
        # What an Envoy of a tenant sends that is long, or was not asked for, must not keep the agent busy.
        if not self._awaited or len(self._received) > _MOST_BYTES:
            self._end()
            return
        try:
            state = parse(self._received)
        except ValueError:
            self._end()
            return
        if state is not None:
            self._received = b""
            self._awaited -= 1
            self.was_live |= state == _LIVE
            self._set_timer(_PAUSES.get(state, _BEGINNING_SECONDS), self.ask)
            self._tell(state)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """See `asyncio.Protocol`."""
        self._end()

    def ask(self) -> None:
        """Ask now instead of later."""
        if self._transport is not None:
            self._transport.write(_REQUEST)
            self._awaited += 1
            self._set_timer(_ANSWER_SECONDS, self._end)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.ended.done():
            self.ended.set_result(None)

    def _set_timer(self, seconds: float, call: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, call)


def parse(received: bytes) -> str | None:
    """The state in an answer to `/ready`; None while it is not whole; ValueError when it is none."""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return None
    if not head.startswith(b"HTTP/1."):
        raise ValueError("no answer of HTTP/1")
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        return _text(_chunks(body))
    _, found, rest = lower.partition(b"content-length:")
    if not found:
        raise ValueError("an answer without length")
    length = int(rest.split(b"\r\n", 1)[0])
    return _text(body[:length]) if len(body) >= length else None


def _chunks(body: bytes) -> bytes | None:
    found = b""
    while True:
        line, end, rest = body.partition(b"\r\n")
        if not end:
            return None
        size = int(line.split(b";")[0], 16)
        if len(rest) < size + 2:
            return None
        if not size:
            return found
        found, body = found + rest[:size], rest[size + 2 :]


def _text(body: bytes | None) -> str | None:
    return None if body is None else body.decode(errors="replace").strip()
