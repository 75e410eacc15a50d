# SPDX-License-Identifier: Apache-2.0
"""Requests have a length: what is read for one account must not take the memory of all."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

MOST_BYTES = 8 << 20
"""Of a body. The longest are the measurements of workload nodes with thousands of tunnels."""


def limited(receive: Receive) -> Receive:
    """`receive` for one request, which raises a 413 when the body is longer than is taken."""
    taken = 0

    async def receiving() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MOST_BYTES:
            raise HTTPException(413, f"the body has more than {MOST_BYTES} bytes")
        return message

    return receiving
