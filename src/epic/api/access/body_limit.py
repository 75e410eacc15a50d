# SPDX-License-Identifier: Apache-2.0
"""Requests have a length: what is read for one account must not take the memory of all."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

MOST_BYTES = 2 << 20
"""Of a body: objects have at most 786,432 bytes, and some clients write characters as six."""
MEASUREMENTS_BYTES = 8 << 20
"""Of the measurements of workload nodes, which may have thousands of tunnels."""


def body_length(headers: Headers, most: int) -> int:
    """How many bytes a request's body may have by its headers, of `most` that are read."""
    if "transfer-encoding" in headers:
        return most
    said = headers.get("content-length", "")
    return min(int(said), most) if said.isdecimal() else 0


def limited(receive: Receive, most: int = MOST_BYTES) -> Receive:
    """`receive` for one request, which raises a 413 when the body is longer than `most` bytes."""
    taken = 0

    async def receiving() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            raise HTTPException(413, f"the body has more than {most} bytes")
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
