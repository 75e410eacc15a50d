# SPDX-License-Identifier: Apache-2.0
"""What a workload node tells the control planes of its ends of tunnels."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import grpc

from epic.agent.tunnel.health import Health
from epic.agent.workload.plan import WorkloadTunnel
from epic.bpf.dataplane import TunnelCounters
from epic.controller.desired import EpicConnection
from epic.errors import EpicError
from epic.proto import epic_pb2, epic_pb2_grpc

log = logging.getLogger(__name__)

REPORT_SECONDS = 10.0
# New keys are confirmed soon, but all those of a burst at once.
_GATHER_SECONDS = 0.5
_CALL_SECONDS = 20.0
_TUNNELS_OF_PART = 500


@dataclass(frozen=True)
class StatusSample:
    """What this node knows of its tunnels at one moment; `now` is monotonic."""

    tunnels: Mapping[int, WorkloadTunnel]
    counters: Mapping[int, TunnelCounters]
    drops: Mapping[str, int]
    health: Mapping[int, Health]
    now: float


class ReportedList(NamedTuple):
    """The tunnels that a server listed, and the revision up to which all removals are carried out; 0: none.

    A tunnel of that revision that made no sense here was refused, and is what it was before.
    `channel`: where it is told of them; None: nowhere now.
    """

    ids: frozenset[int]
    applied: int
    channel: grpc.aio.Channel | None = None


def measurement(sample: StatusSample, id_: int) -> epic_pb2.TunnelStatus:
    """One tunnel; its keys are those that the programs have."""
    tunnel = sample.tunnels[id_]
    found = epic_pb2.TunnelStatus(id=id_, epochs=tunnel.epochs, signing_epoch=tunnel.signing, hello_age=-1)
    if (count := sample.counters.get(id_)) is not None:
        found.rx_packets, found.rx_bytes = count.rx_packets, count.rx_bytes
        found.tx_packets, found.tx_bytes = count.tx_packets, count.tx_bytes
    health = sample.health.get(id_)
    if health is None:
        return found
    if health.last_answer is not None:
        found.hello_age = max(0.0, sample.now - health.last_answer)
    trips = health.round_trips
    if trips and health.round_trip is not None:
        trip = epic_pb2.RoundTrip(last=health.round_trip, min=min(trips), avg=sum(trips) / len(trips))
        found.round_trip.CopyFrom(trip)
    if (loss := health.loss(sample.now)) is not None:
        found.loss = loss
    return found


def parts(sample: StatusSample, listed: ReportedList) -> Iterator[epic_pb2.WorkloadReport]:
    """What is told to the server that listed these tunnels."""
    ids = [id_ for id_ in sorted(listed.ids) if id_ in sample.tunnels]
    drops = {reason: count for reason, count in sample.drops.items() if count}
    part = epic_pb2.WorkloadReport(applied=listed.applied, drops=drops)
    for start in range(0, max(1, len(ids)), _TUNNELS_OF_PART):
        part.tunnels.extend(measurement(sample, id_) for id_ in ids[start : start + _TUNNELS_OF_PART])
        yield part
        part = epic_pb2.WorkloadReport()


class StatusReporter:
    """Reports to each server every few seconds on the tunnels that it listed, and new keys at once.

    Reports go over the connection of the stream.
    """

    def __init__(
        self,
        sample: Callable[[], Awaitable[StatusSample]],
        listed: Callable[[], Mapping[EpicConnection, ReportedList]],
    ) -> None:
        self._sample = sample
        self._listed = listed
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """The programs have new keys."""
        self._wake.set()

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            try:
                async with asyncio.timeout(REPORT_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(_GATHER_SECONDS)
            self._wake.clear()
            try:
                sample = await self._sample()
            except (EpicError, OSError) as error:
                log.debug("tunnels cannot be measured: %s", error)
                continue
            # A server that does not answer holds up no other.
            await asyncio.gather(*(_report(sample, listed) for listed in self._listed().values()))


async def _report(sample: StatusSample, listed: ReportedList) -> None:
    if listed.channel is None or not (listed.ids or listed.applied):
        return
    try:
        stub = epic_pb2_grpc.WorkloadServiceStub(listed.channel)
        await stub.Report(_in_turns(parts(sample, listed)), timeout=_CALL_SECONDS)
    except (grpc.RpcError, grpc.aio.UsageError) as error:
        log.debug("the control plane took no report: %s", error)
    except asyncio.CancelledError:
        # So gRPC tells that the channel was closed meanwhile, too.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise


async def _in_turns(found: Iterator[epic_pb2.WorkloadReport]) -> AsyncIterator[epic_pb2.WorkloadReport]:
    for part in found:
        yield part
        await asyncio.sleep(0)
