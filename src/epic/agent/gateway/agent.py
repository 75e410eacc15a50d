# SPDX-License-Identifier: Apache-2.0
"""The gateway role: relay the control plane's resources, keep tunnels, ports and flag routes right."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from epic import exposition
from epic.ads.delta.client import DeltaClient, mtls_channel
from epic.ads.snapshot import TYPES
from epic.agent.control.certificate import CertificateRenewer
from epic.agent.gateway import metrics
from epic.agent.gateway.announcement import Announcer, Hold
from epic.agent.gateway.bgp.watch import BgpWatch
from epic.agent.gateway.chance.heartbeat import Heartbeat
from epic.agent.gateway.chance.second_chance import SecondChance, by_gateway, find_refusal
from epic.agent.gateway.control import report, storage
from epic.agent.gateway.control.intake import Intake
from epic.agent.gateway.control.resource_cache import ResourceCache
from epic.agent.gateway.envoy.drain import Drainer
from epic.agent.gateway.envoy.endpoint_health import TunnelLiveness
from epic.agent.gateway.envoy.ready_check import ReadyCheck
from epic.agent.gateway.envoy.registry import EnvoyRegistry
from epic.agent.gateway.envoy.xds import XdsSockets
from epic.agent.gateway.firewall import Firewall
from epic.agent.gateway.kernel import GatewayKernel
from epic.agent.gateway.moves import Moves
from epic.agent.gateway.reconcile import Envoys, Reconciler
from epic.agent.gateway.responder import Responder
from epic.agent.netlink import monitor
from epic.agent.runtime import memory
from epic.agent.runtime.store import Saver
from epic.agent.runtime.supervisor import Supervisor
from epic.agent.runtime.systemd import beat_during
from epic.agent.runtime.worker import Worker
from epic.agent.settings import GatewaySettings
from epic.agent.tunnel import events
from epic.bpf.dataplane import Address, Dataplane, EventRing
from epic.log_rate import LogRate
from epic.proto import epic_pb2

log = logging.getLogger(__name__)
_moves = LogRate(log)

_TICK_SECONDS = 1.0
_KERNEL_SECONDS = 60.0
"""The kernel may let those wait who ask it for something, all of them, while others make many interfaces."""
_ROUTES_SECONDS = 1.0
_PART = 128


class GatewayAgent:
    """One EPIC node."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._worker = Worker("kernel")
        self._dataplane = Dataplane(settings.pin_directory, settings.object)
        refusal = find_refusal(settings.second_chance)
        self._second_chance = SecondChance(self._dataplane, settings.node_name, refusal)
        self._routes = Announcer()
        self._firewall = Firewall(settings.firewall, settings.gateway_ports, self._look_at_announcements)
        self._registry = EnvoyRegistry(self._look_at_announcements)
        self._sockets = XdsSockets(self._registry, settings.run_directory / "xds")
        self._drainer = Drainer(self._admin_socket, self._look_at_announcements)
        self._saver = Saver(settings.state_directory)
        self._supervisor = Supervisor()
        self._announce = asyncio.Event()
        self._ready_checks: dict[str, tuple[ReadyCheck, asyncio.Task[None]]] = {}
        self._alive: set[int] = set()
        self._aside: set[asyncio.Task[None]] = set()
        self._route_timer: asyncio.TimerHandle | None = None
        self._events: events.Events = Counter()
        self._liveness = TunnelLiveness()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`; the kernel state stays, for traffic goes on while the agent restarts."""
        # What is there from the start on stays: looking all of it through would hold everybody for 50 ms.
        gc.freeze()
        settings = self._settings
        settings.run_directory.mkdir(parents=True, exist_ok=True)
        settings.state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        kernel = await self._worker.run(
            GatewayKernel, self._dataplane, settings.underlay, settings.state_directory
        )
        self._kernel = kernel
        self._moves = Moves(self._worker, kernel.move)
        await self._routes.open()
        stored = storage.load(settings.state_directory)
        self._cache = stored or ResourceCache()
        self._reconciler = Reconciler(
            self._cache,
            kernel,
            self._worker,
            Envoys(self._registry, self._sockets, self._drainer),
            self._routes,
            self._firewall,
            self._second_chance,
        )
        self._intake = Intake(self._cache, self._saver, self._accept_resources, stop.set)
        client = self._client()
        self._hold = Hold(client, self._cache, standing=bool(self._routes.standing))
        self._reconciler.hold_new = self._hold.holds(self._alive)
        await self._take_over(stored is not None)
        self._renewer = CertificateRenewer(settings.control.pki, settings.node_name, lambda: client.channel)
        self._reporter = report.Reporter(
            settings.node_name, lambda: client.channel, self._state, self._tunnels
        )
        self._bgp = BgpWatch(settings.bird, self._reporter.wake)
        await self._sockets.sync()
        responder = Responder(self._cache.tunnels, self._dataplane.generation, self._probed)
        responder.open()
        self._heartbeat = Heartbeat(
            settings.node_name, self._second_chance, responder.send, self._siblings_changed
        )
        unwatch = monitor.monitor(self._changed, [*kernel.ports, self._routes.port])
        ring = self._dataplane.events()
        asyncio.get_running_loop().add_reader(ring.fileno(), self._happened, ring)
        try:
            await self._serve(client, stop)
        finally:
            asyncio.get_running_loop().remove_reader(ring.fileno())
            ring.close()
            unwatch()
            responder.close()
            self._drainer.close()
            await self._sockets.close()
            self._saver.close()
            self._firewall.close()
            self._routes.close()
            self._worker.close()
            kernel.close()

    async def _take_over(self, stored: bool) -> None:
        """Take up what an earlier agent left in the kernel and, if it did, on disk."""
        await self._worker.run(self._kernel.start)
        await self._worker.run(self._second_chance.start, dict(self._cache.siblings))
        if stored:
            # An Envoy that outlived an earlier agent is not told that all is well before that is known.
            self._liveness.look(await self._worker.run(self._look_at_stored), time.monotonic())
            self._reconciler.set_down(self._liveness.down)
            self._accept_resources()

    async def _serve(self, client: DeltaClient, stop: asyncio.Event) -> None:
        add = self._supervisor.add
        # Who cannot withdraw must not go on.
        add("announcer", self._announce_forever, vital=True)
        add("client", client.run)
        add("reconciler", lambda: self._reconciler.run(self._reconciled))
        add("xds", self._sockets.run)
        add("heartbeat", self._heartbeat.run)
        add("firewall", self._firewall.run)
        add("saver", self._saver.run)
        add("bgp", self._bgp.run)
        add("reporter", self._report)
        add("certificate", self._renewer.run)
        add("memory", memory.trim_periodically)
        metrics = self._settings.metrics
        add("metrics", lambda: exposition.serve(metrics.address, metrics.port, self._metrics))
        self._reconciler.wake()
        try:
            await self._supervisor.run(stop)
        finally:
            for _, task in self._ready_checks.values():
                task.cancel()

    async def _report(self) -> None:
        # What an earlier agent told of sessions holds until this one has looked.
        await self._bgp.wait_known()
        await self._reporter.run()

    def _reconciled(self, tunnels_changed: bool) -> None:
        self._reporter.wake(tunnels=tunnels_changed)

    def _client(self) -> DeltaClient:
        control = self._settings.control
        return DeltaClient(
            lambda: mtls_channel(control.address, control.ca, control.identity),
            self._settings.node_name,
            TYPES,
            self._intake,
            self._intake.drop_node,
        )

    def _accept_resources(self) -> None:
        self._reconciler.accept_resources()
        gateways = self._registry.envoys.keys()
        for gateway in self._ready_checks.keys() - gateways:
            _, task = self._ready_checks.pop(gateway)
            task.cancel()
        for gateway in gateways - self._ready_checks.keys():
            self._ready_checks[gateway] = self._check_ready(gateway)

    def _admin_socket(self, gateway: str) -> Path:
        return self._settings.run_directory / "gateways" / gateway / "admin.sock"

    def _check_ready(self, gateway: str) -> tuple[ReadyCheck, asyncio.Task[None]]:
        def tell(state: str) -> None:
            self._registry.set_ready(gateway, self._drainer.hear(gateway, state))

        check = ReadyCheck(self._admin_socket(gateway), tell)
        return check, asyncio.create_task(check.run(), name=f"ready check {gateway}")

    def _look_at_announcements(self) -> None:
        self._announce.set()

    async def _announce_forever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._announce.wait()
            except TimeoutError:
                # Some conclusions come with time alone.
                pass
            self._reconciler.hold_new = self._hold.holds(self._alive)
            changed = self._announce.is_set()
            self._announce.clear()
            if await beat_during(self._reconciler.announce(), _KERNEL_SECONDS) or changed:
                self._reporter.wake()
            if changed:
                self._reconciler.wake_if_waiting()

    def _changed(self, found: monitor.Changes) -> None:
        self._kernel.pending.add(found)
        if found.ours:
            self._routes.suspect()
            for check, _ in self._ready_checks.values():
                check.ask()
        # Routes may change all the time; others' are looked at a little later, all at once.
        if found.ours or found.rules or found.lost:
            self._reconciler.wake()
        elif found.links or found.addresses or found.filters:
            self._reconciler.look_at_interfaces()
        elif found.routes and not self._route_timer:
            self._route_timer = asyncio.get_running_loop().call_later(_ROUTES_SECONDS, self._routes_changed)

    def _routes_changed(self) -> None:
        self._route_timer = None
        self._reconciler.wake()

    def _happened(self, ring: EventRing) -> None:
        """The programs tell of far ends that came or moved."""
        found = ring.read()
        for event in events.read_events(found, self._alive):
            self._count(event)
            self._alive.add(event.tunnel)
        if self._liveness.hear({event.tunnel for event in found}):
            self._reconciler.set_down(self._liveness.down)
        moved = {event.tunnel for event in found if event.lane == 0}
        self._moves.add(moved)

    def _probed(self, payload: bytes, source: Address) -> None:
        self._heartbeat.hear(payload, source)

    def _siblings_changed(self) -> None:
        # On the kernel's thread, between what rounds do there.
        task = asyncio.create_task(self._renew_siblings(), name="siblings")
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def _renew_siblings(self) -> None:
        await self._worker.run(self._second_chance.renew)
        await self._worker.repeat(self._second_chance.work)

    def _instances(self) -> list[epic_pb2.InstanceStatus]:
        return report.instance_statuses(
            self._cache.instances,
            self._registry.envoys,
            self._routes.standing,
            self._drainer.ended,
            self._reconciler.leaving,
            report.Made(self._second_chance.applied, self._reconciler.failures, self._reconciler.withheld),
        )

    def _state(self) -> epic_pb2.NodeReport:
        return epic_pb2.NodeReport(
            instances=self._instances(),
            problems=self._problems(),
            applied_digest=self._reconciler.applied,
            held_gateways=sorted(self._intake.held),
            second_chance=not self._second_chance.refusal,
            second_chance_refusal=self._second_chance.refusal,
            bgp=self._bgp.status,
            silent_addresses=sorted(map(str, self._second_chance.lost)),
        )

    def _problems(self) -> list[str]:
        """What is wrong with the node now."""
        parts = (
            self._intake,
            self._reconciler,
            self._kernel,
            self._moves,
            self._second_chance,
            self._heartbeat,
            self._routes,
            self._firewall,
            self._bgp,
            self._saver,
            self._renewer,
            self._supervisor,
        )
        return [problem for part in parts for problem in part.problems]

    async def _tunnels(self) -> report.TunnelReport:
        if self._kernel.idle:
            return report.TunnelReport([], {})
        before = frozenset(self._alive)
        # In parts: what is to be changed meanwhile must not wait for all of them.
        statuses = await self._worker.collect(self._sample_tunnels(), _PART)
        if self._liveness.look(statuses, time.monotonic()):
            self._reconciler.set_down(self._liveness.down)
        alive, down = events.find_silent(before & self._alive, statuses)
        self._alive = alive | (self._alive - before)
        for event in down:
            self._count(event)
        for key in [key for key in self._events if key[0] not in self._cache.tunnels]:
            del self._events[key]
        drops = await self._worker.run(self._dataplane.drop_counters)
        chances = await self._worker.collect(self._second_chance.counters(), _PART)
        return report.TunnelReport(statuses, drops, by_gateway(chances))

    def _count(self, event: events.Event) -> None:
        if event.what == "moved":
            # As often as a workload node likes.
            _moves.info("%s", event.text)
        else:
            log.log(logging.WARNING if event.what == "down" else logging.INFO, "%s", event.text)
        self._events[event.tunnel, event.what] += 1

    async def _metrics(self) -> str:
        tunnels = await self._tunnels()
        gateways = {id_: tunnel.gateway for id_, tunnel in self._cache.tunnels.items()}
        life = self._renewer.life
        return await metrics.render(
            tunnels,
            gateways,
            self._instances(),
            self._events,
            self._supervisor.failures,
            life.not_after if life else None,
            (metrics.siblings_family(self._heartbeat.nodes), *self._bgp.families),
        )

    def _look_at_stored(self) -> list[epic_pb2.TunnelStatus]:
        tunnels = self._cache.tunnels
        return list(report.tunnel_statuses(self._dataplane, tunnels, time.monotonic_ns()))

    def _sample_tunnels(self) -> Iterator[epic_pb2.TunnelStatus]:
        return report.tunnel_statuses(self._dataplane, self._kernel.installed, time.monotonic_ns())
