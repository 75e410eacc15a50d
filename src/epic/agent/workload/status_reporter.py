# SPDX-License-Identifier: Apache-2.0
"""What a workload node tells the control plane of its ends of tunnels."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from epic.agent.tunnel.health import Health
from epic.agent.workload.plan import WorkloadTunnel
from epic.bpf.dataplane import TunnelCounters
from epic.client import PREFIX, EpicClient
from epic.controller.desired import EpicConnection
from epic.errors import EpicError

log = logging.getLogger(__name__)

REPORT_SECONDS = 10.0
# New keys are confirmed soon, but all those of a burst at once.
_GATHER_SECONDS = 0.5
_BUSY_SECONDS = 2.0


@dataclass(frozen=True)
class StatusSample:
    """What this node knows of its tunnels at one moment; `now` is monotonic."""

    tunnels: Mapping[int, WorkloadTunnel]
    counters: Mapping[int, TunnelCounters]
    drops: Mapping[str, int]
    health: Mapping[int, Health]
    now: float


def measurement(sample: StatusSample, id_: int) -> dict[str, Any]:
    """One tunnel as the REST API takes it; its keys are those that the programs have."""
    tunnel = sample.tunnels[id_]
    found: dict[str, Any] = {"id": id_, "epochs": list(tunnel.epochs), "signing-epoch": tunnel.signing}
    if (count := sample.counters.get(id_)) is not None:
        found |= {
            "rx-packets": count.rx_packets,
            "rx-bytes": count.rx_bytes,
            "tx-packets": count.tx_packets,
            "tx-bytes": count.tx_bytes,
        }
    health = sample.health.get(id_)
    if health is None:
        return found
    if health.last_answer is not None:
        found["hello-age"] = max(0.0, round(sample.now - health.last_answer, 3))
    trips = health.round_trips
    if trips and health.round_trip is not None:
        found["round-trip"] = {
            "last": round(health.round_trip, 6),
            "min": round(min(trips), 6),
            "avg": round(sum(trips) / len(trips), 6),
        }
    if (loss := health.loss(sample.now)) is not None:
        found["loss"] = round(loss, 4)
    return found


class ReportedList(NamedTuple):
    """The tunnels that a server listed, and the revision of its list that is carried out whole; 0: none."""

    ids: frozenset[int]
    applied: int


def body(sample: StatusSample, listed: ReportedList) -> dict[str, Any]:
    """What is told to the server that listed these tunnels."""
    return {
        "applied": listed.applied,
        "tunnels": [measurement(sample, id_) for id_ in sorted(listed.ids) if id_ in sample.tunnels],
        "drops": {reason: count for reason, count in sample.drops.items() if count},
    }


def path(connection: EpicConnection, node: str) -> str:
    """Where the server takes this node's measurements."""
    query = urlencode({"cluster": connection.cluster, "node": node})
    return f"{PREFIX}/accounts/{quote(connection.account, safe='')}/tunnels/status?{query}"


class StatusReporter:
    """Reports to each server every few seconds on the tunnels that it listed, and new keys at once."""

    def __init__(
        self,
        node: str,
        ca: Path | None,
        sample: Callable[[], Awaitable[StatusSample]],
        listed: Callable[[], Mapping[EpicConnection, ReportedList]],
    ) -> None:
        self._node = node
        self._ca = ca
        self._sample = sample
        self._listed = listed
        self._wake = asyncio.Event()
        self._last_logged: dict[EpicConnection, str] = {}
        self._threads: dict[EpicConnection, threading.Thread] = {}

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
            for connection, listed in self._listed().items():
                self._report_in_background(connection, body(sample, listed))

    def _report_in_background(self, connection: EpicConnection, content: dict[str, Any]) -> None:
        # A daemon's thread of its own: a server that does not answer holds up neither others nor the end.
        before = self._threads.get(connection)
        if before is not None and before.is_alive():
            asyncio.get_running_loop().call_later(_BUSY_SECONDS, self.wake)
        elif content["tunnels"] or content["applied"]:
            name = f"report {connection.account}"
            thread = threading.Thread(target=self._report, args=(connection, content), name=name, daemon=True)
            self._threads[connection] = thread
            thread.start()

    def _report(self, connection: EpicConnection, content: dict[str, Any]) -> None:
        problem = ""
        try:
            with EpicClient(connection.server, connection.username, connection.password, self._ca) as client:
                client.put(path(connection, self._node), content)
        except EpicError as error:
            problem = str(error)
        if problem and not self._last_logged.get(connection):
            log.warning("account %s takes no measurements: %s", connection.account, problem)
        self._last_logged[connection] = problem
