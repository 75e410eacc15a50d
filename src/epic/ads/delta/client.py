# SPDX-License-Identifier: Apache-2.0
"""A delta-ADS client on grpc.aio that subscribes to whole types and reconnects for ever."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3 import discovery_pb2 as pb
from google.rpc import code_pb2, status_pb2

from epic.ads.delta.connection import NODE_ACCEPTED, NODE_REMOVED
from epic.ads.snapshot import Resources, Versioned

log = logging.getLogger(__name__)

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 5.0
# A control node that vanished without a word is noticed within the sum of the two times.
_CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A server of the platform's own knows what it sends; gRPC's own limit is 4 MiB.
    ("grpc.max_receive_message_length", -1),
)


class Handler(Protocol):
    """Takes what the server sends."""

    async def apply(self, type_url: str, updated: Resources, removed: Sequence[str]) -> str | None:
        """Take in additions, changes and removals of one type; a text refuses them and says why.

        Called for one response at a time, in the order of the server.
        """

    def versions(self, type_url: str) -> Mapping[str, str]:
        """By name, of what it has of a type: what it took in, and what it had from before."""


def mtls_channel(address: str, ca: Path, identity: Path) -> grpc.aio.Channel:
    """A channel to `HOST:PORT` on which both ends show certificates; `identity` holds the key, too."""
    # gRPC takes what it needs of each text.
    own = identity.read_bytes()
    credentials = grpc.ssl_channel_credentials(ca.read_bytes(), own, own)
    return grpc.aio.secure_channel(address, credentials, options=_CHANNEL_OPTIONS)


class DeltaClient:
    """Keeps `handler` at what the server has."""

    def __init__(
        self,
        channel_factory: Callable[[], grpc.aio.Channel],
        node_id: str,
        type_urls: Sequence[str],
        handler: Handler,
        on_removed: Callable[[], None] = lambda: None,
        on_refused: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_removed` is called when the server says that the node is none any more, at each attempt.

        `on_refused` is called when it refuses the certificate, for that or another reason.
        """
        self._channel_factory = channel_factory
        self._node = base_pb2.Node(id=node_id)
        self._type_urls = tuple(type_urls)
        self._handler = handler
        self._on_removed = on_removed
        self._on_refused = on_refused
        self._channel: grpc.aio.Channel | None = None
        self._heard = False

    @property
    def channel(self) -> grpc.aio.Channel | None:
        """The channel of the running stream, for other calls to the same server; None between streams."""
        return self._channel

    @property
    def heard(self) -> bool:
        """Whether the server has sent something on the running stream, or did on the last one."""
        return self._heard

    async def run(self) -> None:
        """Follow the server until cancelled; when the stream ends, open another after a growing delay."""
        delay = _FIRST_DELAY
        while True:
            self._heard = False
            try:
                async with self._channel_factory() as channel:
                    await self._follow(channel)
                    log.info("the control plane ended the stream")
            except grpc.RpcError as error:
                log.warning("stream to the control plane: %s", _reason(error))
                if says_removed(error):
                    self._on_removed()
                if _code(error) == grpc.StatusCode.PERMISSION_DENIED:
                    self._on_refused()
            except OSError as error:
                log.warning("cannot open a channel to the control plane: %s", error)
            delay = _FIRST_DELAY if self._heard else min(delay * 2, _LONGEST_DELAY)
            await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - spreads reconnections

    async def _follow(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        # A generator of requests would go on waiting for the next one when the stream has ended.
        call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).DeltaAggregatedResources()
        try:
            first, *others = self._type_urls
            await _write(call, self._subscription(first))
            # To write on a call that the server refuses makes gRPC forget why: so wait for its word.
            if any(key == NODE_ACCEPTED for key, _ in await call.initial_metadata()):
                for type_url in others:
                    await _write(call, self._subscription(type_url))
            while (response := await call.read()) is not grpc.aio.EOF:
                self._heard = True
                await _write(call, await self._take(response))
        finally:
            self._channel = None
            call.cancel()

    def _subscription(self, type_url: str) -> pb.DeltaDiscoveryRequest:
        return pb.DeltaDiscoveryRequest(
            node=self._node, type_url=type_url, initial_resource_versions=self._handler.versions(type_url)
        )

    async def _take(self, response: pb.DeltaDiscoveryResponse) -> pb.DeltaDiscoveryRequest:
        answer = pb.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        updated = {r.name: _versioned(r) for r in response.resources}
        removed = list(response.removed_resources)
        refusal = await self._handler.apply(response.type_url, updated, removed)
        if refusal is not None:
            answer.error_detail.CopyFrom(status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message=refusal))
        return answer


def _versioned(resource: pb.Resource) -> Versioned:
    return Versioned(resource.version, sys.intern(resource.resource.type_url), resource.resource.value)


async def _write(
    call: grpc.aio.StreamStreamCall[pb.DeltaDiscoveryRequest, pb.DeltaDiscoveryResponse],
    request: pb.DeltaDiscoveryRequest,
) -> None:
    # The server may have ended the stream: reading says how.
    with suppress(asyncio.InvalidStateError):
        await call.write(request)


def says_removed(error: grpc.RpcError) -> bool:
    """Whether a call was refused because the node was removed."""
    if not isinstance(error, grpc.aio.AioRpcError) or _code(error) != grpc.StatusCode.PERMISSION_DENIED:
        return False
    return any(key == NODE_REMOVED for key, _ in error.trailing_metadata())


def _code(error: grpc.RpcError) -> grpc.StatusCode | None:
    return error.code() if isinstance(error, grpc.aio.AioRpcError) else None


def _reason(error: grpc.RpcError) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error)
