"""The workload role: this node's ends of the tunnels, and the controller of its manifests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection

from pyroute2 import NetlinkError

from epic.agent.netlink import monitor
from epic.agent.runtime import exposition, memory
from epic.agent.runtime.supervisor import Supervisor
from epic.agent.runtime.systemd import keep_beating
from epic.agent.runtime.worker import Worker
from epic.agent.settings import WorkloadSettings
from epic.agent.tunnel.endpoints import EndpointKey
from epic.agent.workload import metrics, plan, storage
from epic.agent.workload.counter import HelloCounter
from epic.agent.workload.kernel import WorkloadKernel
from epic.agent.workload.sender import HelloSender
from epic.agent.workload.status_reporter import StatusReporter, StatusSample
from epic.agent.workload.tunnel_watch import TunnelWatch
from epic.bpf.dataplane import Address, Dataplane
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
        self._lists: dict[str, storage.Listed] = {}
        self._tunnels: dict[int, plan.WorkloadTunnel] = {}
        self._done: object = None
        self._address: Address | None = None
        self._readdressed = asyncio.Event()
        self._leaving: dict[EndpointKey, float] = {}
        self._watches: dict[EpicConnection, TunnelWatch] = {}
        self._wake = asyncio.Event()
        self._supervisor = Supervisor()
        self._status_reporter = StatusReporter(settings.node_name, settings.ca, self._sample, self._own)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`; the kernel state stays as it is."""
        settings = self._settings
        settings.state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._kernel = await self._worker.run(
            WorkloadKernel, self._dataplane, settings.underlay, settings.state_directory
        )
        await self._worker.run(self._kernel.start)
        self._address = await self._worker.run(self._kernel.address)
        counter = HelloCounter(settings.state_directory)
        self._sender = HelloSender(counter.next, settings.underlay, self._wake.set)
        self._sender.open()
        self._restore()
        unwatch = monitor.monitor(self._changed, self._kernel.port)
        try:
            await self._serve(stop)
        finally:
            unwatch()
            self._sender.close()
            for watch in self._watches.values():
                watch.stop()
            self._worker.close()
            self._kernel.close()

    async def _serve(self, stop: asyncio.Event) -> None:
        add = self._supervisor.add
        add("heartbeat", keep_beating, vital=True)
        add("controller", self._control)
        add("reconciler", self._reconcile)
        add("sender", self._sender.run)
        add("reporter", self._status_reporter.run)
        add("memory", memory.trim_periodically)
        add("metrics", lambda: exposition.serve(self._settings.metrics, self._metrics))
        await self._supervisor.run(stop)

    async def _control(self) -> None:
        """Run the controller of the manifests, again when this node has another address."""
        while True:
            self._readdressed.clear()
            if self._address is not None:
                controller = self._controller(self._address)
                works = {controller.run(), self._follow_connections(controller), self._readdressed.wait()}
                tasks = [asyncio.ensure_future(work) for work in works]
                try:
                    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
            else:
                log.warning("no underlay interface has an address yet; the manifests wait")
                await self._readdressed.wait()

    def _controller(self, address: Address) -> LinuxController:
        settings = self._settings
        return LinuxController(
            settings.manifests,
            settings.cluster,
            settings.node_name,
            str(address),
            settings.ca,
            settings.state_directory / "controller.json",
        )

    def _changed(self, found: monitor.Changes) -> None:
        self._kernel.pending.add(found)
        self._wake.set()

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
        before = self._lists.get(_label(connection))
        try:
            listed = storage.read(data, before)
        except ValueError as error:
            log.error("%s: %s; what it listed before stays in force", _label(connection), error)
            return
        if before is None or before.documents.keys() != listed.documents.keys():
            self._keep({**self._lists, _label(connection): listed})

    def _keep(self, lists: dict[str, storage.Listed]) -> None:
        self._lists = lists
        storage.save(self._settings.state_directory, lists)
        self._apply_lists()

    def _restore(self) -> None:
        for label, data in storage.load(self._settings.state_directory).items():
            try:
                self._lists[label] = storage.read(data)
            except ValueError as error:
                log.error("stored tunnels of %s: %s", label, error)
        self._apply_lists()

    def _apply_lists(self) -> None:
        lists = (listed.tunnels for _, listed in sorted(self._lists.items()))
        self._tunnels, complaints = plan.merge(lists)
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
        """StatusSample at everything once and make it right; returns when to look again by itself."""
        self._wake.clear()
        listed, direct, now = self._tunnels, self._direct(), time.monotonic()
        changed = await self._worker.run(self._kernel.follow)
        # Nobody else writes what we write, so there is nothing to do while nothing changes.
        if not changed and not self._leaving and self._done == (listed, direct):
            return _RESYNC_SECONDS
        self._done = None
        observed = await self._worker.run(self._kernel.observe)
        wanted = await self._worker.run(self._kernel.wanted, listed, direct)
        self._leaving = plan.leaving(wanted, observed, self._leaving, now)
        kept = {key for key, since in self._leaving.items() if now - since < LEAVE_SECONDS}
        steps = plan.plan(wanted, observed, kept)
        fine = await self._worker.run(self._kernel.apply, steps, wanted)
        self._sender.set_tunnels(listed, self._kernel.places)
        self._set_address(await self._worker.run(self._kernel.address))
        if steps.set_tunnels:
            self._status_reporter.wake()
        if not fine:
            return _RETRY_SECONDS
        await self._worker.run(self._kernel.release_old_programs)
        self._leaving = {key: since for key, since in self._leaving.items() if key in kept}
        self._done = listed, direct
        soonest = min((self._leaving[key] + LEAVE_SECONDS for key in kept), default=now + _RESYNC_SECONDS)
        return max(0.1, soonest - now)

    def _direct(self) -> frozenset[int]:
        """Tunnels that need not keep to one port."""
        return self._sender.direct if self._settings.underlay.spread else frozenset()

    def _set_address(self, address: Address | None) -> None:
        if address != self._address:
            self._address = address
            self._readdressed.set()

    async def _sample(self) -> StatusSample:
        """How the tunnels are."""
        return await self._worker.run(self._measure)

    def _measure(self) -> StatusSample:
        return StatusSample(
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
            listed = self._lists.get(_label(connection))
            found[connection] = {tunnel.id for tunnel in listed.tunnels} if listed else set()
        return found

    async def _metrics(self) -> str:
        return metrics.render(await self._sample(), self._sender.events, self._supervisor.failures)


def _label(connection: EpicConnection) -> str:
    return f"{connection.server}/{connection.account}/{connection.cluster}"
