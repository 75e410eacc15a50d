# SPDX-License-Identifier: Apache-2.0
"""How a server ends a call that is still being written to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc

T = TypeVar("T")

_TIMES = 100


async def outcome(call: Callable[[], Awaitable[T]]) -> T:
    """What `call` returns or raises; it makes a call, or another one.

    A client that writes just when it is refused may forget the server's word, and says INTERNAL instead.
    """
    for _ in range(_TIMES):
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.INTERNAL:
                raise
    raise AssertionError(f"{_TIMES} calls ended without the server's word")


async def code_of(call: Callable[[], grpc.aio.Call]) -> grpc.StatusCode:
    """The code with which the server ends such a call."""
    for _ in range(_TIMES):
        code: grpc.StatusCode = await call().code()
        if code != grpc.StatusCode.INTERNAL:
            return code
    raise AssertionError(f"{_TIMES} calls ended without the server's word")
