# SPDX-License-Identifier: Apache-2.0
"""The workload role: this node's ends of the tunnels, and the controller of its manifests."""

from __future__ import annotations

import asyncio
import logging
import time

from epic import exposition
from epic.agent.netlink import monitor
from epic.agent.runtime import memory
from epic.agent.runtime.log_once import LogOnce
from epic.agent.runtime.supervisor import Supervisor
from epic.agent.runtime.systemd import keep_beating
from epic.agent.runtime.worker import Worker
from epic.agent.settings import WorkloadSettings
from epic.agent.tunnel.endpoints import EndpointKey
from epic.agent.workload import metrics, plan
from epic.agent.workload.control.reports import ReportedList, StatusReporter, StatusSample
from epic.agent.workload.control.session import TunnelIntake, TunnelSession
from epic.agent.workload.counter import HelloCounter
from epic.agent.workload.kernel import WorkloadKernel
from epic.agent.workload.lists import TunnelLists
from epic.agent.workload.sender import HelloSender
from epic.bpf.dataplane import Address, Dataplane
from epic.controller.desired import EpicConnection
from epic.controller.linux import Connections, HostSettings, LinuxController

log = logging.getLogger(__name__)

# After so long, requests that were sent before an endpoint was removed are answered.
LEAVE_SECONDS = 5.0
_RETRY_SECONDS = 2.0
_RESYNC_SECONDS = 5.0
_GATHER_SECONDS = 0.02


class WorkloadAgent:
    """One node of a client."""

    def __init__(self, settings: WorkloadSettings) -> None:
        self._settings = settings
        self._worker = Worker("kernel")
        self._dataplane = Dataplane(settings.pin_directory, settings.object)
        self._lists = TunnelLists(settings.state_directory)
        self._done: object = None
        self._applied: dict[str, int] = {}
        self._address: Address | None = None
        self._readdressed = asyncio.Event()
        self._leaving: dict[EndpointKey, float] = {}
        self._sessions: dict[EpicConnection, TunnelSession] = {}
        self._wake = asyncio.Event()
        self._breached = False
        self._troubles = LogOnce(log)
        self._supervisor = Supervisor()
        self._status_reporter = StatusReporter(self._sample, self._own)

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
        self._lists.restore()
        unwatch = monitor.monitor(self._changed, [self._kernel.port])
        try:
            await self._serve(stop)
        finally:
            unwatch()
            self._sender.close()
            for session in self._sessions.values():
                session.stop()
            self._worker.close()
            self._lists.close()
            self._kernel.close()

    async def _serve(self, stop: asyncio.Event) -> None:
        add = self._supervisor.add
        add("heartbeat", keep_beating, vital=True)
        add("controller", self._control)
        add("reconciler", self._reconcile)
        add("sender", self._sender.run)
        add("state", self._lists.run)
        add("reporter", self._status_reporter.run)
        add("memory", memory.trim_periodically)
        metrics = self._settings.metrics
        add("metrics", lambda: exposition.serve(metrics.address, metrics.port, self._metrics))
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
            HostSettings(
                manifests=settings.manifests,
                cluster=settings.cluster,
                node_name=settings.node_name,
                node_address=str(address),
                ca=settings.ca,
                state_file=settings.state_directory / "controller.json",
                statuses=settings.statuses,
                hold_removals_from=settings.hold_removals_from,
            )
        )

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the node now, a line each."""
        parts = (self._kernel, self._lists, self._supervisor)
        sessions = (problem for session in self._sessions.values() for problem in session.problems)
        return (
            *self._troubles.problems,
            *(problem for part in parts for problem in part.problems),
            *sessions,
        )

    def _changed(self, found: monitor.Changes) -> None:
        self._kernel.pending.add(found)
        self._breached |= bool(found.filters & self._kernel.guarded)
        self._wake.set()

    async def _follow_connections(self, controller: LinuxController) -> None:
        async for connections in controller.connection_changes():
            self._set_connections(connections)

    def _set_connections(self, connections: Connections) -> None:
        wanted = set(connections.found)
        if not connections.complete:
            wanted |= self._sessions.keys()
        for connection in self._sessions.keys() - wanted:
            self._sessions.pop(connection).stop()
        for connection in sorted(wanted - self._sessions.keys(), key=_label):
            self._sessions[connection] = session = self._session(connection)
            session.start()
        self._lists.expect({_label(connection) for connection in wanted}, complete=connections.complete)
        self._wake.set()

    def _session(self, connection: EpicConnection) -> TunnelSession:
        settings = self._settings
        intake = TunnelIntake(_label(connection), self._lists, self._wake.set)
        # In memory: a full disk keeps no node from its tunnels, and a certificate is had again at any time.
        identities = settings.run_directory / "identities"
        return TunnelSession(connection, settings.node_name, settings.ca, identities, intake)

    async def _reconcile(self) -> None:
        while True:
            try:
                pause = await self._round()
            except Exception as error:
                # Whatever it is, it must not keep the rest of the agent from its work.
                self._supervisor.failures["reconciler"] += 1
                self._troubles.report("node", f"the node cannot be looked at: {error!r}; trying again")
                log.debug("the node cannot be looked at", exc_info=error)
                pause = _RETRY_SECONDS
            else:
                self._troubles.report("node", "")
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue
            # A wall that is down is put up at once.
            await asyncio.sleep(0 if self._breached else _GATHER_SECONDS)

    async def _round(self) -> float:
        """Look at everything once and make it right; returns when to look again by itself."""
        whole = not self._wake.is_set()
        self._wake.clear()
        self._breached = False
        listed, direct, now = self._lists.tunnels, self._direct(), time.monotonic()
        complete, revisions = self._lists.complete, self._lists.revisions()
        changed = await self._worker.run(self._kernel.follow, whole)
        if not changed and not self._leaving and self._done == (listed, direct, complete):
            self._set_applied(revisions if complete else {})
            return _RESYNC_SECONDS
        self._done = None
        observed = await self._worker.run(self._kernel.observe)
        wanted = await self._worker.run(self._kernel.wanted, listed, direct)
        self._leaving = plan.leaving(wanted, observed, self._leaving, now)
        kept = {key for key, since in self._leaving.items() if now - since < LEAVE_SECONDS}
        steps = plan.plan(wanted, observed, kept)
        if not complete:
            steps = plan.only_own_removals(steps, observed)
        fine = await self._worker.run(self._kernel.apply, steps, wanted)
        self._sender.set_tunnels(listed, self._kernel.places)
        self._set_address(await self._worker.run(self._kernel.address))
        if steps.set_tunnels:
            self._status_reporter.wake()
        if not fine:
            return _RETRY_SECONDS
        await self._worker.run(self._kernel.release_old_programs)
        self._leaving = {key: since for key, since in self._leaving.items() if key in kept}
        self._done = listed, direct, complete
        if complete and not kept:
            self._set_applied(revisions)
        soonest = min((self._leaving[key] + LEAVE_SECONDS for key in kept), default=now + _RESYNC_SECONDS)
        return max(0.1, soonest - now)

    def _set_applied(self, revisions: dict[str, int]) -> None:
        """All that these lists ask for is carried out, and nothing else is here."""
        if revisions and revisions != self._applied:
            self._applied = revisions
            self._status_reporter.wake()

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

    def _own(self) -> dict[EpicConnection, ReportedList]:
        """Which tunnels each server listed, and how far that is carried out."""
        found: dict[EpicConnection, ReportedList] = {}
        for connection, session in self._sessions.items():
            label = _label(connection)
            found[connection] = ReportedList(
                self._lists.ids(label), self._applied.get(label, 0), session.channel
            )
        return found

    async def _metrics(self) -> str:
        failures, problems = self._supervisor.failures, len(self.problems)
        return await metrics.render(await self._sample(), self._sender.events, failures, problems)


def _label(connection: EpicConnection) -> str:
    return f"{connection.server}/{connection.account}/{connection.cluster}"
