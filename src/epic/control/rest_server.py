# SPDX-License-Identifier: Apache-2.0
"""The REST server: uvicorn behind a door that bounds connections, and the time that requests take to come."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from asyncio import sslproto
from collections.abc import Iterator

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from epic.api.access.connections import STATE, Connection, Connections
from epic.control.settings import RestSettings
from epic.log_rate import LogRate

log = logging.getLogger(__name__)

_STREAMS_MAY_END_SECONDS = 1
_HANDSHAKE_SECONDS = 10.0
# From when the server waits for it, to its last byte. Between requests uvicorn waits for five.
_HEADER_SECONDS = 10.0
_BODY_SECONDS = 60.0
# So long a client may take for what is written for it: a reply of any size waits whole in memory.
_TAKE_SECONDS = 120.0
_PAUSE_SECONDS = 1.0
# More than a record of TLS.
_READ_BYTES = 32 << 10
_SHORT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class RestServer(uvicorn.Server):
    """uvicorn without its own signal handling and accepting, telling when it listens."""

    def __init__(self, app: ASGIApp, rest: RestSettings) -> None:
        config = uvicorn.Config(
            app,
            http="h11",
            ssl_certfile=str(rest.certificate),
            ssl_keyfile=str(rest.key),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            # Who asks is who is connected, whatever a program on this host says.
            proxy_headers=False,
            # Event streams never end by themselves.
            timeout_graceful_shutdown=_STREAMS_MAY_END_SECONDS,
        )
        config.load()
        super().__init__(config)
        assert config.ssl is not None  # noqa: S101
        self.tls: ssl.SSLContext = config.ssl
        self.listening = asyncio.Event()
        self.connections = Connections(rest.limits())
        self._doors: list[_Door] = []
        # Each connection has a buffer of that size for as long as it lives; asyncio's own takes 256 KiB.
        sslproto.SSLProtocol.max_size = _READ_BYTES

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections from now on."""
        # What uvicorn itself would listen with.
        self.servers = []
        for sock in sockets or []:
            sock.setblocking(False)
            # Those that are accepted have it from this one; asyncio sets it only where it made the socket. A
            # reply is written in two parts, and without it the second waits 40 ms for the client's word.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._doors.append(_Door(self, sock))
        self.started = True
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept none any more, and let those that are open end."""
        for door in self._doors:
            await door.close()
        await super().shutdown(sockets)


class _Door:
    """Accepts connections of one socket; each has its own task until its TLS handshake is done."""

    def __init__(self, server: RestServer, sock: socket.socket) -> None:
        self._server = server
        self._sock = sock
        self._log = LogRate(log)
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept(), name="door")

    async def close(self) -> None:
        """End what is not served yet."""
        tasks = {self._accepting, *self._handshakes}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(self._sock)
            except OSError as error:
                # Others are of one client that is gone again.
                if error.errno in _SHORT_OF:
                    self._log.warning("connections to the REST API cannot be accepted: %s", error)
                    await asyncio.sleep(_PAUSE_SECONDS)
                continue
            connection = self._server.connections.admit(address[0])
            task = loop.create_task(self._shake_hands(sock, connection))
            connection.drop = task.cancel
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)
            # With a full backlog accepting never waits; others are to have their turn.
            await asyncio.sleep(0)

    async def _shake_hands(self, sock: socket.socket, connection: Connection) -> None:
        server = self._server
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Protocol(server.config, server.server_state, connection),
                sock,
                ssl=server.tls,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
            )
        except OSError:
            # It did not come, or was none: scanners and health checks of TCP do that all day.
            connection.end()
        except BaseException:
            connection.end()
            raise


class _Protocol(H11Protocol):
    """HTTP on one connection; it ends when a request takes too long to come, or a reply to be taken."""

    def __init__(self, config: uvicorn.Config, state: ServerState, connection: Connection) -> None:
        super().__init__(config, state, {STATE: connection})
        self._connection = connection
        self._awaited: object = None
        self._deadline: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The handshake is done."""
        super().connection_made(transport)
        self._connection.drop = transport.abort
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        self._stop_waiting()
        self._end_of_pause()
        self._connection.end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some of a request has come."""
        super().data_received(data)
        self._await_request()

    def pause_writing(self) -> None:
        """The client does not take what is written for it."""
        super().pause_writing()
        self._stuck = self.loop.call_later(_TAKE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It has taken nearly everything."""
        self._end_of_pause()
        super().resume_writing()

    def _end_of_pause(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _await_request(self) -> None:
        state = self.conn.their_state
        if state is self._awaited:
            return
        self._stop_waiting()
        seconds = {h11.IDLE: _HEADER_SECONDS, h11.SEND_BODY: _BODY_SECONDS}.get(state)
        if seconds is not None and not self.transport.is_closing():
            self._awaited = state
            self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _stop_waiting(self) -> None:
        self._awaited = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
