# SPDX-License-Identifier: Apache-2.0
"""Single requests to an Envoy's admin interface, on its Unix socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

from epic.agent.gateway.envoy.admin_socket import opened

_ANSWER_SECONDS = 2.0
_MOST_BYTES = 1 << 22
"""Of an answer. The statistics that are asked for have a line or two for each listener and worker."""

FAILURES = (OSError, EOFError, ValueError, TimeoutError)
"""What a request raises when there is no Envoy, or none that answers."""


async def request(socket: Path, method: str, path: str) -> str:
    """The body of the answer; raises one of `FAILURES`, also when it is not 200."""
    async with asyncio.timeout(_ANSWER_SECONDS):
        with opened(socket) as way:
            reader, writer = await asyncio.open_unix_connection(way, limit=_MOST_BYTES)
        try:
            head = (
                f"{method} {path} HTTP/1.1\r\nhost: envoy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
            writer.write(head.encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            body = bytearray()
            while part := await reader.read(_MOST_BYTES):
                body += part
                if len(body) > _MOST_BYTES:
                    raise ValueError(f"{method} {path}: the answer has more than {_MOST_BYTES} bytes")
        finally:
            writer.close()
    status = answer.split(b" ", 2)[1]
    if status != b"200":
        raise ValueError(f"{method} {path}: status {status.decode()}")
    return body.decode(errors="replace")


async def fail_health(socket: Path) -> None:
    """Have clients leave: `Connection: close` and GOAWAY, and health checks fail. `pass_health` undoes it."""
    await request(socket, "POST", "/healthcheck/fail")


async def pass_health(socket: Path) -> None:
    """Serve as before."""
    await request(socket, "POST", "/healthcheck/ok")


async def count_connections(socket: Path) -> int:
    """Connections of clients now."""
    return sum_connections(await request(socket, "GET", "/stats?filter=downstream_cx_active&usedonly"))


def sum_connections(stats: str) -> int:
    """The same from the text of the statistics: those of each listener but the admin interface's own."""
    found = 0
    for line in stats.splitlines():
        name, _, value = line.partition(": ")
        if name.startswith("listener.") and name.endswith(".downstream_cx_active"):
            inner = name.removeprefix("listener.").removesuffix(".downstream_cx_active")
            # A listener's threads count theirs again.
            if inner != "admin" and not inner.startswith("admin.") and ".worker_" not in inner:
                found += int(value)
    return found
