# SPDX-License-Identifier: Apache-2.0
"""Who is served at a port at all: asked of the connection's certificate before anything of a call is read."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from epic.ads.delta.connection import Refusal
from epic.log_rate import LogRate

log = logging.getLogger(__name__)

_Context = grpc.aio.ServicerContext[Any, Any]
_Requests = AsyncIterator[Any]
_Serve = Callable[[_Requests, _Context], Awaitable[Any]]

Admit = Callable[[_Context], Refusal | None]
"""Given the context: why the caller is not served, or None."""


class Admission(grpc.aio.ServerInterceptor):
    """Refuses the calls of those whom `admit` does; what they send is neither read nor parsed."""

    def __init__(self, admit: Admit) -> None:
        self._admit = admit
        self._log = LogRate(log)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The method's handler behind the question; None: there is no such method."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        make: Any = grpc.stream_unary_rpc_method_handler
        if handler.stream_stream is not None:
            make, serve = grpc.stream_stream_rpc_method_handler, handler.stream_stream
        elif handler.stream_unary is not None:
            serve = handler.stream_unary
        else:
            # gRPC reads the one request before it calls, but none of a stream, be it of one.
            serve = _of_one(handler.unary_unary)
        made: grpc.RpcMethodHandler[Any, Any] = make(
            self._behind(serve), handler.request_deserializer, handler.response_serializer
        )
        return made

    def _behind(self, serve: _Serve) -> _Serve:
        async def ask_first(requests: _Requests, context: _Context) -> Any:
            refusal = self._admit(context)
            if refusal is not None:
                self._log.warning("refused %s: %s", context.peer(), refusal.message)
                await refusal.abort(context)
            return await serve(requests, context)

        return ask_first


def _of_one(serve: Callable[[Any, _Context], Awaitable[Any]]) -> _Serve:
    async def serve_first(requests: _Requests, context: _Context) -> Any:
        request = await anext(aiter(requests), None)
        if request is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a call without a request")
        return await serve(request, context)

    return serve_first
