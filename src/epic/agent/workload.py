"""The workload role: this node's ends of the tunnels, and the controller of its manifests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from pyroute2 import NetlinkError

from epic.agent import metrics, netlink, tunnels, workload_state
from epic.agent.desired import EndpointKey
from epic.agent.hello import control_socket
from epic.agent.hello_sender import Counter, HelloSender
from epic.agent.measure import Look, Teller
from epic.agent.notify import notify
from epic.agent.settings import WorkloadSettings
from epic.agent.watch import TunnelWatch
from epic.agent.worker import Worker
from epic.agent.workload_kernel import WorkloadKernel
from epic.bpf.dataplane import Dataplane
from epic.controller.desired import EpicConnection
from epic.controller.linux import LinuxController
from epic.errors import EpicError

log = logging.getLogger(__name__)

# After so long, requests that were sent before an endpoint was removed are answered.
LEAVE_SECONDS = 5.0
_RETRY_SECONDS = 2.0
_RESYNC_SECONDS = 30.0
_GATHER_SECONDS = 0.02


class WorkloadAgent:
    """One node of a client."""

    def __init__(self, settings: WorkloadSettings) -> None:
        self._settings = settings
        self._worker = Worker("kernel")
        self._dataplane = Dataplane(settings.pin_directory, settings.object)
        self._lists: dict[str, Any] = {}
        self._tunnels: dict[int, tunnels.WorkloadTunnel] = {}
        self._said: list[str] = []
        self._leaving: dict[EndpointKey, float] = {}
        self._watches: dict[EpicConnection, TunnelWatch] = {}
        self._wake = asyncio.Event()
        self._teller = Teller(settings.node_name, settings.ca, self._look, self._own)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`; the kernel state stays as it is."""
        settings = self._settings
        settings.state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._kernel = await self._worker.run(WorkloadKernel, self._dataplane, settings.underlay)
        await self._worker.run(self._kernel.start)
        loop = asyncio.get_running_loop()
        _, self._sender = await loop.create_datagram_endpoint(
            self._hello_sender, sock=control_socket(settings.underlay.address)
        )
        self._lists = workload_state.load(settings.state_directory)
        self._take()
        unwatch = netlink.watch(self._wake.set, routes=True)
        try:
            await self._serve(stop)
        finally:
            unwatch()
            for watch in self._watches.values():
                watch.stop()
            self._worker.close()
            self._kernel.close()

    async def _serve(self, stop: asyncio.Event) -> None:
        settings = self._settings
        controller = LinuxController(
            settings.manifests,
            settings.cluster,
            settings.node_name,
            str(settings.underlay.address),
            settings.ca,
            settings.state_directory / "controller.json",
        )
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(work)
                for work in (
                    controller.run(),
                    self._follow_connections(controller),
                    self._reconcile(),
                    self._sender.run(),
                    self._teller.run(),
                    metrics.serve(settings.metrics, self._metrics),
                )
            ]
            notify("READY=1")
            await stop.wait()
            notify("STOPPING=1")
            for task in running:
                task.cancel()

    def _hello_sender(self) -> HelloSender:
        directory = self._settings.state_directory
        counter = Counter(
            workload_state.load_counter(directory),
            lambda reserved: workload_state.save_counter(directory, reserved),
        )
        return HelloSender(counter)

    async def _follow_connections(self, controller: LinuxController) -> None:
        async for connections in controller.connection_changes():
            self._set_connections(connections)

    def _set_connections(self, connections: Collection[EpicConnection]) -> None:
        wanted = set(connections)
        for connection in self._watches.keys() - wanted:
            self._watches.pop(connection).stop()
        for connection in sorted(wanted - self._watches.keys(), key=_label):
            watch = TunnelWatch(connection, self._settings.node_name, self._settings.ca, self._listed)
            self._watches[connection] = watch
            watch.start()
        labels = {_label(connection) for connection in wanted}
        if self._lists.keys() - labels:
            self._keep({label: data for label, data in self._lists.items() if label in labels})

    def _listed(self, connection: EpicConnection, data: dict[str, object]) -> None:
        """A server has listed this node's tunnels."""
        try:
            tunnels.parse(data)
        except ValueError as error:
            log.error("%s: %s; what it listed before stays in force", _label(connection), error)
            return
        if self._lists.get(_label(connection)) != data:
            self._keep({**self._lists, _label(connection): data})

    def _keep(self, lists: dict[str, Any]) -> None:
        self._lists = lists
        workload_state.save(self._settings.state_directory, lists)
        self._take()

    def _take(self) -> None:
        parsed = []
        for label, data in sorted(self._lists.items()):
            try:
                parsed.append(tunnels.parse(data))
            except ValueError as error:
                log.error("stored tunnels of %s: %s", label, error)
        self._tunnels, complaints = tunnels.merge(parsed)
        for complaint in complaints:
            log.error("%s", complaint)
        self._wake.set()

    async def _reconcile(self) -> None:
        while True:
            try:
                pause = await self._round()
            except (EpicError, OSError, NetlinkError) as error:
                log.error("the node cannot be looked at: %s; trying again", error)
                pause = _RETRY_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(_GATHER_SECONDS)

    async def _round(self) -> float:
        """Look at everything once and make it right; returns when to look again by itself."""
        self._wake.clear()
        wanted = self._tunnels
        now = time.monotonic()
        observed = await self._worker.run(self._kernel.observe)
        routes = await self._worker.run(self._kernel.routes, wanted)
        self._leaving = tunnels.leaving(wanted, observed, self._leaving, now)
        kept = [key for key, since in self._leaving.items() if now - since < LEAVE_SECONDS]
        plan = tunnels.plan(wanted, routes, observed, kept)
        fine = await self._worker.run(self._kernel.apply, plan)
        self._sender.set_tunnels(wanted)
        if plan.set_tunnels:
            self._teller.wake()
        if not fine:
            return _RETRY_SECONDS
        soonest = min((self._leaving[key] + LEAVE_SECONDS for key in kept), default=now + _RESYNC_SECONDS)
        return max(0.1, soonest - now)

    async def _look(self) -> Look:
        """How the tunnels are."""
        return await self._worker.run(self._measure)

    def _measure(self) -> Look:
        return Look(
            tunnels=dict(self._kernel.installed),
            counters=self._dataplane.tunnel_counters(),
            drops=self._dataplane.drop_counters(),
            health=dict(self._sender.health),
            now=time.monotonic(),
        )

    def _own(self) -> dict[EpicConnection, set[int]]:
        """Which tunnels each server listed."""
        found: dict[EpicConnection, set[int]] = {}
        for connection in self._watches:
            with suppress(ValueError):
                listed = tunnels.parse(self._lists.get(_label(connection), {}))
                found[connection] = {tunnel.id for tunnel in listed}
        return found

    async def _metrics(self) -> str:
        return metrics.workload_text(await self._look(), self._sender.events)


def _label(connection: EpicConnection) -> str:
    return f"{connection.server}/{connection.account}/{connection.cluster}"
