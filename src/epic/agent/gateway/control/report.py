# SPDX-License-Identifier: Apache-2.0
"""What the agent says of its node to the control plane."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import grpc

from epic import __version__
from epic.agent.gateway.desired import Instance, Tunnel
from epic.agent.gateway.envoy.readiness import Envoy
from epic.agent.runtime.turns import in_turns
from epic.bpf.dataplane import Address, Dataplane, SecondChanceCounters
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
    chances: Mapping[str, SecondChanceCounters] = field(default_factory=dict)
    """What became of gateways' packets, by gateway."""


@dataclass(frozen=True)
class Made:
    """What the kernel has for gateways, by gateway."""

    siblings: Mapping[str, str] = field(default_factory=dict)
    """The versions of siblings that the programs have."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """What was refused."""
    withheld: Mapping[str, str] = field(default_factory=dict)
    """Why one of two public addresses is not to be announced."""


NOTHING_SAID = Made()


def instance_statuses(
    instances: Mapping[str, Instance],
    envoys: Mapping[str, Envoy],
    standing: Set[Address],
    drained: Collection[str] = (),
    leaving: Iterable[str] = (),
    made: Made = NOTHING_SAID,
) -> list[epic_pb2.InstanceStatus]:
    """The state of each instance, by name, and of what is not to be one any more but is not gone."""
    found = []
    for gateway, envoy in sorted(envoys.items()):
        if gateway not in instances:
            continue
        publics = instances[gateway].publics
        missing = [public for public in publics if public not in standing]
        announced = len(missing) < len(publics)
        status = epic_pb2.InstanceStatus(
            gateway=gateway,
            ready=envoy.ready,
            serving_revision=envoy.revision,
            announced=announced,
            error=envoy.error,
            drained=gateway in drained and standing.isdisjoint(publics),
            applied_siblings=made.siblings.get(gateway, ""),
            kernel_error=made.failures.get(gateway, ""),
            address_error=_address_error(missing, made.withheld.get(gateway)) if announced else "",
        )
        found.append(status)
    return found + [epic_pb2.InstanceStatus(gateway=gateway, leaving=True) for gateway in leaving]


def _address_error(missing: Sequence[Address], withheld: str | None) -> str:
    """Why an instance is not announced at these addresses; `withheld`: on purpose."""
    if not missing:
        return ""
    return withheld or f"{missing[0]} is not announced: it has no flag route"


def tunnel_statuses(
    dataplane: Dataplane, tunnels: Mapping[int, Tunnel], now_ns: int
) -> Iterator[epic_pb2.TunnelStatus]:
    """Counters, observed address and keys of each of these tunnels; blocks for each a little."""
    for id_, count, lanes in dataplane.observed():
        if (tunnel := tunnels.get(id_)) is None:
            continue
        status = epic_pb2.TunnelStatus(
            id=id_,
            hello_age=-1,
            rx_packets=count.rx_packets,
            rx_bytes=count.rx_bytes,
            tx_packets=count.tx_packets,
            tx_bytes=count.tx_bytes,
            epochs=tunnel.epochs,
            signing_epoch=tunnel.signing,
        )
        if lanes:
            status.observed_address, status.observed_port = str(lanes[0].address), lanes[0].port
            heard = max(peer.last_hello_ns for peer in lanes)
            status.hello_age = max(0.0, (now_ns - heard) / 1e9)
        yield status


def second_chance_statuses(
    chances: Mapping[str, SecondChanceCounters],
) -> Iterator[epic_pb2.SecondChanceStatus]:
    """Of each gateway that had packets."""
    for gateway, counts in sorted(chances.items()):
        if any(vars(counts).values()):
            yield epic_pb2.SecondChanceStatus(
                gateway=gateway,
                hits=counts.hits,
                passed_on=counts.passed_on + counts.to_owner,
                learned=counts.learned,
                chain_ends=counts.chain_ends,
                over_budget=counts.over_budget,
            )


class Reporter:
    """Tells of the instances at each change, and of everything every few seconds and when tunnels changed.

    `state` is what is told each time: instances, digest, problems. Reports go over the connection of the ADS
    stream.
    """

    def __init__(
        self,
        node: str,
        channel: Callable[[], grpc.aio.Channel | None],
        state: Callable[[], epic_pb2.NodeReport],
        tunnels: Callable[[], Awaitable[TunnelReport]],
    ) -> None:
        self._node = node
        self._channel = channel
        self._state = state
        self._tunnels = tunnels
        self._wake = asyncio.Event()
        self._tunnels_changed = True
        self._reported: epic_pb2.NodeReport | None = None

    def wake(self, *, tunnels: bool = False) -> None:
        """The instances may be others than was told; `tunnels`: so may the tunnels."""
        self._tunnels_changed |= tunnels
        self._wake.set()

    async def run(self) -> None:
        """Report until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + REPORT_SECONDS
        while True:
            try:
                async with asyncio.timeout_at(due):
                    await self._wake.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(_GATHER_SECONDS)
            self._wake.clear()
            if self._tunnels_changed or loop.time() >= due:
                self._tunnels_changed = False
                due = loop.time() + REPORT_SECONDS
                await self._report_all()
            else:
                await self._report_state()

    async def _report_all(self) -> None:
        if self._channel() is None:
            return
        tunnels = await self._tunnels()
        chances = [status async for status in in_turns(second_chance_statuses(tunnels.chances))]
        await self._send(self._state(), tunnels=tunnels.statuses, drops=tunnels.drops, second_chances=chances)

    async def _report_state(self) -> None:
        state = self._state()
        if state != self._reported:
            await self._send(state, instances_only=True)

    async def _send(self, state: epic_pb2.NodeReport, **others: Any) -> None:
        # Taken only now: a stub that is made for a channel that was closed meanwhile makes gRPC crash.
        channel = self._channel()
        if channel is None:
            return
        self._reported = None
        report = epic_pb2.NodeReport(node=self._node, agent_version=__version__, **others)
        report.MergeFrom(state)
        try:
            await epic_pb2_grpc.AgentServiceStub(channel).Report(report, timeout=_CALL_SECONDS)
            self._reported = state
        except (grpc.RpcError, grpc.aio.UsageError) as error:
            log.debug("the control plane took no report: %s", error)
        except asyncio.CancelledError:
            # So gRPC tells that the channel was closed meanwhile, too.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
