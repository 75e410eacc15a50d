# SPDX-License-Identifier: Apache-2.0
"""What agents of workload nodes call besides the stream: reports and the renewal of their certificates."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from typing import Any

import grpc

from epic.ads.identity.issuer import Issuer
from epic.live import End, Live, Place, RoundTrip
from epic.log_rate import LogRate
from epic.model.resources import Tunnel
from epic.pki.certificates import RequestError
from epic.pki.directory import PkiError
from epic.proto import epic_pb2, epic_pb2_grpc
from epic.rotation import Holds
from epic.store.interface import Store
from epic.workloads.certification import sign
from epic.workloads.identity import WorkloadAuthorizer
from epic.workloads.streams import identified

log = logging.getLogger(__name__)

_TUNNELS_OF_PART = 1000
_PARTS = 1000
_DROPS_OF_PART = 200
_WORD_MAX = 64
_EPOCHS = 2
_PAUSE_SECONDS = 0.25
"""From one report of a node to the next, at least."""
_REPORT_SECONDS = 30.0

_Context = grpc.aio.ServicerContext[Any, Any]


class WorkloadAgents(epic_pb2_grpc.WorkloadServiceServicer):
    """Each call for the workload node only whose certificate the connection shows."""

    def __init__(self, store: Store, live: Live, issuer: Issuer, authorize: WorkloadAuthorizer) -> None:
        self._store = store
        self._live = live
        self._issuer = issuer
        self._authorize = authorize
        self._reporting: set[str] = set()
        self._log = LogRate(log)

    async def Report(  # noqa: N802 - the name that gRPC calls
        self, request_iterator: AsyncIterator[epic_pb2.WorkloadReport], context: _Context
    ) -> epic_pb2.WorkloadReportReply:
        """Take in what a node measured; tunnels that do not end there are passed over."""
        found = await identified(self._authorize, context, self._log)
        place = found.identity.place
        name = place.id
        if name in self._reporting:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"node {place.node!r} is reporting")
        self._reporting.add(name)
        loop = asyncio.get_running_loop()
        free = loop.time() + _PAUSE_SECONDS
        try:
            async with asyncio.timeout(_REPORT_SECONDS):
                await self._take(place, request_iterator, context)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the report did not come to an end")
        finally:
            # Not before it has ended: a late one would replace a newer one.
            loop.call_at(max(free, loop.time()), self._reporting.discard, name)
        return epic_pb2.WorkloadReportReply()

    async def RenewCertificate(  # noqa: N802 - the name that gRPC calls
        self, request: epic_pb2.RenewCertificateRequest, context: _Context
    ) -> epic_pb2.RenewCertificateReply:
        """A certificate for the node whose the connection's is, by the same credential."""
        found = await identified(self._authorize, context, self._log)
        uri = found.identity.uri
        try:
            reply = await sign(self._issuer, uri, request.request)
        except RequestError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except (PkiError, OSError) as error:
            log.error("a workload node's certificate cannot be renewed: %s", error)
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, "the control plane cannot sign; its log says why"
            )
        return reply

    async def _take(
        self, place: Place, parts: AsyncIterator[epic_pb2.WorkloadReport], context: _Context
    ) -> None:
        own = await asyncio.to_thread(self._own, place)
        if not own:
            # Nodes' names are free: what is not about a tunnel is nothing to keep or to read.
            return
        ends: dict[int, End] = {}
        drops: dict[str, int] = {}
        applied = count = 0
        async for part in parts:
            count += 1
            if count > _PARTS or len(part.tunnels) > _TUNNELS_OF_PART or len(part.drops) > _DROPS_OF_PART:
                words = f"a report has at most {_PARTS} parts of {_TUNNELS_OF_PART} tunnels"
                words += f" and {_DROPS_OF_PART} reasons for drops"
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, words)
            if count == 1:
                drops, applied = {word[:_WORD_MAX]: n for word, n in part.drops.items()}, part.applied
            ends.update((said.id, end_of(said)) for said in part.tunnels if said.id in own)
            await asyncio.sleep(0)
        if count:
            self._live.take(place, ends, drops, applied or None)

    def _own(self, place: Place) -> set[int]:
        key = (place.account, place.cluster, place.node)
        return {int(tunnel.name) for tunnel in self._store.by(Tunnel, "workload-node", key)}


def end_of(said: epic_pb2.TunnelStatus) -> End:
    """What a workload node says of its end of a tunnel, as it is kept."""
    trip = said.round_trip
    is_timed = said.HasField("round_trip") and all(map(_is_duration, (trip.last, trip.min, trip.avg)))
    is_counted = said.HasField("loss") and 0 <= said.loss <= 1
    return End(
        holds=Holds(frozenset(said.epochs[:_EPOCHS]), said.signing_epoch),
        rx_packets=said.rx_packets,
        rx_bytes=said.rx_bytes,
        tx_packets=said.tx_packets,
        tx_bytes=said.tx_bytes,
        hello_age=said.hello_age if _is_duration(said.hello_age) else None,
        round_trip=RoundTrip(trip.last, trip.min, trip.avg) if is_timed else None,
        loss=said.loss if is_counted else None,
    )


def _is_duration(seconds: float) -> bool:
    return math.isfinite(seconds) and seconds >= 0
