# SPDX-License-Identifier: Apache-2.0
"""Requests have a length: what is read for one account must not take the memory of all."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

MOST_BYTES = 2 << 20
"""Of a body: objects have at most 786,432 bytes, and some clients write characters as six."""


def body_length(headers: Headers) -> int:
    """How many bytes a request's body may have by its headers, of those that are read."""
    if "transfer-encoding" in headers:
        return MOST_BYTES
    said = headers.get("content-length", "")
    return min(int(said), MOST_BYTES) if said.isdecimal() else 0


def limited(receive: Receive) -> Receive:
    """`receive` for one request, which raises a 413 when the body is longer than may be."""
    taken = 0

    async def receiving() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MOST_BYTES:
            raise HTTPException(413, f"the body has more than {MOST_BYTES} bytes")
        return message

    return receiving


async def read_whole(receive: Receive) -> Receive | None:
    """`receive` that gives at once what there is of a request's body; None: its client is gone.

    Raises what reading it raises.
    """
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    body: Message | None = {"type": "http.request", "body": b"".join(parts), "more_body": False}

    async def receiving() -> Message:
        nonlocal body
        if body is None:
            return await receive()
        message, body = body, None
        return message

    return receiving
