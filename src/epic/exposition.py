# SPDX-License-Identifier: Apache-2.0
"""Metrics for Prometheus: the text format, written purely, and the small server of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import accumulate

log = logging.getLogger(__name__)

Labels = Mapping[str, str]

_REQUEST_BYTES = 8192
_REQUEST_SECONDS = 5.0
_ESCAPED = {ord("\\"): "\\\\", ord("\n"): "\\n"}
_QUOTED = _ESCAPED | {ord('"'): '\\"'}
_CONTENT = "text/plain; version=0.0.4; charset=utf-8"


@dataclass
class Family:
    """A metric and its samples, which are written at once: 100,000 kept as objects would hold everybody."""

    name: str
    kind: str
    help: str
    lines: list[str] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> None:
        """Add a sample."""
        self._write(self.name, value, labels)

    def add_histogram(
        self, bounds: Sequence[float], counts: Sequence[int], total: float, **labels: str
    ) -> None:
        """Add what was counted up to each bound; `counts` has one more, for what is beyond all of them."""
        sums = list(accumulate(counts))
        for bound, count in zip((*map(_number, bounds), "+Inf"), sums, strict=True):
            self._write(f"{self.name}_bucket", count, {**labels, "le": bound})
        self._write(f"{self.name}_sum", total, labels)
        self._write(f"{self.name}_count", sums[-1], labels)

    def _write(self, name: str, value: float, labels: Labels) -> None:
        self.lines.append(f"{name}{_labels(labels)} {_number(value)}")


def exposition(families: Iterable[Family]) -> str:
    """The text format, version 0.0.4."""
    lines: list[str] = []
    for family in families:
        lines += [
            f"# HELP {family.name} {family.help.translate(_ESCAPED)}",
            f"# TYPE {family.name} {family.kind}",
        ]
        lines += family.lines
    return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    inner = ",".join([f'{name}="{value.translate(_QUOTED)}"' for name, value in labels.items()])
    return f"{{{inner}}}" if inner else ""


def _number(value: float) -> str:
    # Counters beyond 2**53 must not lose their last digits.
    return str(int(value)) if isinstance(value, int) else repr(float(value))


async def serve(address: IPv4Address, port: int, collect: Callable[[], Awaitable[str]]) -> None:
    """Answer GET /metrics until cancelled; return where the port is 0 or cannot be had."""
    if not port:
        return
    try:
        server = await asyncio.start_server(
            lambda reader, writer: _answer(reader, writer, collect),
            str(address),
            port,
            limit=_REQUEST_BYTES,
        )
    except OSError as error:
        log.error("no metrics: %s port %d cannot be had: %s", address, port, error.strerror)
        return
    async with server:
        await server.serve_forever()


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, collect: Callable[[], Awaitable[str]]
) -> None:
    try:
        async with asyncio.timeout(_REQUEST_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(await _reply(head, collect))
            await writer.drain()
    except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        log.debug("a request for metrics broke off: %s", error)
    finally:
        writer.close()


async def _reply(head: bytes, collect: Callable[[], Awaitable[str]]) -> bytes:
    method, target, *_ = [*head.split(b"\r\n", 1)[0].split(b" "), b"", b""]
    if target.split(b"?")[0] != b"/metrics":
        status, text = "404 Not Found", "metrics are at /metrics\n"
    elif method != b"GET":
        status, text = "405 Method Not Allowed", "only GET is possible\n"
    else:
        try:
            status, text = "200 OK", await collect()
        except Exception:
            log.exception("metrics cannot be collected")
            status, text = "500 Internal Server Error", "the log says more\n"
    content = text.encode()
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {_CONTENT}", f"Content-Length: {len(content)}")
    return "\r\n".join((*lines, "Connection: close", "", "")).encode() + content
