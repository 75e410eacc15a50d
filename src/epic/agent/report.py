"""What the agent says of its node to the control plane."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

import grpc

from epic import __version__
from epic.agent.desired import Instance, Tunnel
from epic.agent.envoys import Envoy
from epic.bpf.dataplane import Dataplane, Peer
from epic.bpf.wire import MAX_LANES
from epic.proto import epic_pb2, epic_pb2_grpc

log = logging.getLogger(__name__)

REPORT_SECONDS = 5.0
_CALL_SECONDS = 5.0
# Changes come in bursts (an Envoy acknowledges four types); this is what a report may be late.
_GATHER_SECONDS = 0.02


@dataclass(frozen=True)
class TunnelReport:
    """What the tunnel programs say."""

    statuses: list[epic_pb2.TunnelStatus]
    drops: dict[str, int]


def instance_statuses(
    instances: Mapping[str, Instance], envoys: Mapping[str, Envoy], standing: Collection[IPv4Address]
) -> list[epic_pb2.InstanceStatus]:
    """The state of each instance, by name."""
    return [
        epic_pb2.InstanceStatus(
            gateway=gateway,
            ready=envoy.ready,
            serving_revision=envoy.revision,
            announced=instances[gateway].public in standing,
            error=envoy.error,
        )
        for gateway, envoy in sorted(envoys.items())
        if gateway in instances
    ]


def tunnel_statuses(
    dataplane: Dataplane, tunnels: Mapping[int, Tunnel], now_ns: int
) -> list[epic_pb2.TunnelStatus]:
    """Counters, observed address and keys of each tunnel that the programs have; blocks."""
    counters = dataplane.tunnel_counters()
    statuses = []
    for id_, tunnel in sorted(tunnels.items()):
        status = epic_pb2.TunnelStatus(
            id=id_, hello_age=-1, epochs=tunnel.epochs, signing_epoch=tunnel.signing
        )
        if (count := counters.get(id_)) is not None:
            status.rx_packets, status.rx_bytes = count.rx_packets, count.rx_bytes
            status.tx_packets, status.tx_bytes = count.tx_packets, count.tx_bytes
        lanes = _lanes(dataplane, id_)
        if lanes:
            status.observed_address, status.observed_port = str(lanes[0].address), lanes[0].port
            heard = max(peer.last_hello_ns for peer in lanes)
            status.hello_age = max(0.0, (now_ns - heard) / 1e9)
        statuses.append(status)
    return statuses


def _lanes(dataplane: Dataplane, id_: int) -> list[Peer]:
    """The far end as each lane shows it that was heard; the first lane first."""
    first = dataplane.peer(id_)
    others = range(1, first.lanes if first is not None else MAX_LANES)
    found = (first, *(dataplane.peer(id_, lane) for lane in others))
    return [peer for peer in found if peer is not None and peer.last_hello_ns]


def tunnel_report(dataplane: Dataplane, tunnels: Mapping[int, Tunnel], now_ns: int) -> TunnelReport:
    """All that the tunnel programs say; blocks."""
    return TunnelReport(tunnel_statuses(dataplane, tunnels, now_ns), dataplane.drop_counters())


class Reporter:
    """Sends a report after each change and every few seconds, on the connection of the ADS stream."""

    def __init__(
        self,
        node: str,
        channel: Callable[[], grpc.aio.Channel | None],
        instances: Callable[[], list[epic_pb2.InstanceStatus]],
        tunnels: Callable[[], Awaitable[TunnelReport]],
    ) -> None:
        self._node = node
        self._channel = channel
        self._instances = instances
        self._tunnels = tunnels
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Something changed."""
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
            await self._send()

    async def _send(self) -> None:
        if self._channel() is None:
            return
        tunnels = await self._tunnels()
        report = epic_pb2.NodeReport(
            node=self._node,
            agent_version=__version__,
            instances=self._instances(),
            tunnels=tunnels.statuses,
            drops=tunnels.drops,
        )
        # Taken only now: a stub that is made for a channel that was closed meanwhile makes gRPC crash.
        channel = self._channel()
        if channel is None:
            return
        try:
            await epic_pb2_grpc.AgentServiceStub(channel).Report(report, timeout=_CALL_SECONDS)
        except (grpc.RpcError, grpc.aio.UsageError) as error:
            log.debug("the control plane took no report: %s", error)
        except asyncio.CancelledError:
            # So gRPC tells that the channel was closed meanwhile, too.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
