# SPDX-License-Identifier: Apache-2.0
"""Asking BIRD 2 on its control socket, as `birdc -r` does: on a connection that may only look."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import NamedTuple

from epic.errors import Unavailable

_SECONDS = 2.0
_LINE_BYTES = 4096
_REPLY_BYTES = 4 << 20
_CODE = re.compile(r"([0-9]{4})([ -])(.*)")
_FIRST_ERROR = 8000


class Line(NamedTuple):
    """A line of a reply; `code` says what it is about."""

    code: int
    text: str


async def ask(path: Path, command: str) -> list[Line]:
    """The reply to a command that changes nothing.

    Raises:
        Unavailable: there was none in time, or it was no answer; the text says why.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            return await _converse(path, command)
    except TimeoutError as error:
        raise Unavailable(f"BIRD does not answer within {_SECONDS:g} s on {path}") from error
    except OSError as error:
        raise Unavailable(f"BIRD cannot be asked on {path}: {error.strerror or error}") from error
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise Unavailable(f"BIRD broke its answer off on {path}") from error


async def _converse(path: Path, command: str) -> list[Line]:
    reader, writer = await asyncio.open_unix_connection(path, limit=_LINE_BYTES)
    try:
        await _reply(reader)
        # From now on BIRD itself refuses whatever would change something.
        for line in ("restrict", command):
            writer.write(f"{line}\n".encode())
            found = await _reply(reader)
        return found
    finally:
        # A BIRD that hangs takes nothing: what it was told must not wait for it.
        writer.transport.abort()


async def _reply(reader: asyncio.StreamReader) -> list[Line]:
    lines: list[Line] = []
    size = code = 0
    while True:
        raw = await reader.readuntil(b"\n")
        size += len(raw)
        if size > _REPLY_BYTES:
            raise Unavailable(f"BIRD's answer has more than {_REPLY_BYTES} bytes")
        text = raw.decode(errors="replace").rstrip("\n")
        head = _CODE.match(text)
        # Lines of the same code come without it, after a space.
        code, text = (int(head[1]), head[3]) if head else (code, text[1:])
        if code >= _FIRST_ERROR:
            raise Unavailable(f"BIRD refuses to answer: {text}")
        lines.append(Line(code, text))
        if head and head[2] == " ":
            return lines
