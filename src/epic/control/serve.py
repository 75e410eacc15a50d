# SPDX-License-Identifier: Apache-2.0
"""Runs the services side by side until a signal, or until one of them fails."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from ipaddress import IPv6Address
from typing import Any

from starlette.types import ASGIApp

from epic.control.certificate import follow_certificate
from epic.control.rest_server import RestServer
from epic.control.settings import RestSettings

log = logging.getLogger(__name__)

_STOP_SECONDS = 2.5
_BACKLOG = 2048

Service = Callable[[], Coroutine[Any, Any, None]]


async def serve(
    app: ASGIApp,
    rest: RestSettings,
    services: dict[str, Service],
    on_stop: Callable[[int], None] = lambda _: None,
) -> None:
    """Serve the API and run the services until SIGTERM or SIGINT; raises when a service fails.

    `on_stop` is called as soon as the end has begun, with the exit status that it deserves.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    sockets = [_listening_socket(rest)]
    server = RestServer(app, rest)
    tasks = {asyncio.create_task(service(), name=name) for name, service in services.items()}
    tasks.add(asyncio.create_task(server.serve(sockets), name="REST"))
    announcing = asyncio.create_task(_announce(server, rest))
    following = asyncio.create_task(follow_certificate(server.tls, rest))
    status = 1
    try:
        await _until_stopped(stop, tasks)
        status = 0
    finally:
        notify("STOPPING=1")
        on_stop(status)
        server.should_exit = True
        announcing.cancel()
        following.cancel()
        for task in tasks:
            # The REST server ends what it is at by itself.
            if task.get_name() != "REST":
                task.cancel()
        await asyncio.wait(tasks, timeout=_STOP_SECONDS)


async def _until_stopped(stop: asyncio.Event, tasks: set[asyncio.Task[None]]) -> None:
    stopping = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    for task in done - {stopping}:
        task.result()
        raise RuntimeError(f"service {task.get_name()} ended by itself")
    log.info("stopping")


async def _announce(server: RestServer, rest: RestSettings) -> None:
    await server.listening.wait()
    host = f"[{rest.listen}]" if rest.listen.version == 6 else rest.listen
    log.info("REST API at https://%s:%d/api/epic", host, rest.port)
    notify("READY=1")


def end_process_soon(status: int) -> None:
    """End the process even if a thread does not: every accepted write is on disk already."""
    timer = threading.Timer(_STOP_SECONDS + 0.2, os._exit, [status])
    timer.daemon = True
    timer.start()


def notify(state: str) -> None:
    """Tell systemd, if it asked to be told; if it does not listen, all goes on and ends as it would."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
            sock.sendall(state.encode())


def _listening_socket(rest: RestSettings) -> socket.socket:
    """`::` takes IPv4 connections too; on a host without IPv6 it takes those alone."""
    address = (str(rest.listen), rest.port)
    if rest.listen != IPv6Address("::"):
        family = socket.AF_INET if rest.listen.version == 4 else socket.AF_INET6
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    if socket.has_dualstack_ipv6():
        return socket.create_server(address, family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)
    return socket.create_server(("", rest.port), backlog=_BACKLOG)
