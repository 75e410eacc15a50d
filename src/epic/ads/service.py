# SPDX-License-Identifier: Apache-2.0
"""The control plane's ADS service: from the store's changes to what every EPIC node should have."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Set
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from epic.ads.agents import AgentService
from epic.ads.delta.server import DeltaServer
from epic.ads.delta.unpaced import UnpacedStream
from epic.ads.desired.assemble import Accepted
from epic.ads.desired.configurations import Configurations
from epic.ads.desired.nodes import NodeSnapshots, told
from epic.ads.desired.objects import KINDS, Inputs, ObjectIndex
from epic.ads.desired.parts import NodeChanges, Parts
from epic.ads.desired.revisions import Revisions
from epic.ads.desired.siblings import SiblingLists
from epic.ads.desired.unseen import KEPT, Unseen
from epic.ads.identity.authorization import Authorizer, client_name
from epic.ads.identity.credentials import ServerFiles
from epic.ads.identity.issuer import Issuer
from epic.ads.listening import listening
from epic.ads.reports import (
    applied_siblings,
    configured,
    drops,
    ends,
    second_chances,
    silent_addresses,
)
from epic.ads.settings import AdsSettings
from epic.ads.snapshot import TUNNEL
from epic.ads.status_saver import StatusSaver
from epic.ads.statuses import Statuses
from epic.envoy.judge import Judge
from epic.envoy.resources import Bundle
from epic.envoy.validate import validate
from epic.errors import EpicError
from epic.lifecycle.tunnels import Evidence
from epic.live import Live, Place, epic_place, workload_place
from epic.model.base import now
from epic.model.nodes import NodeRevocation
from epic.model.resources import GWProxy, Node, Tunnel
from epic.model.siblings import Siblings
from epic.model.values.naming import GatewayId
from epic.proto import epic_pb2
from epic.siblings.heard import AppliedLists
from epic.store.interface import Change, Store
from epic.supervise import TellOnce, keep_running
from epic.workqueue.gateways import WaitingGateways

log = logging.getLogger(__name__)

_DEBOUNCE_SECONDS = 0.005
_SILENCE = timedelta(seconds=30)
_WATCH_SILENCE_SECONDS = 5.0
_AGAIN_SECONDS = 2.0
# Gateways to look at before what others have is published: some tens of milliseconds at most.
_OF_AN_ACCOUNT = 20
# An agent has one; that of before it came again may be there until somebody notices that it is dead.
_MOST_STREAMS = 2


class AdsService:
    """Watches the store, builds and validates configurations, serves agents, notes what they report.

    `hear_applied` is told of the gateways of which nodes have another list of siblings than before.
    """

    def __init__(
        self,
        store: Store,
        settings: AdsSettings,
        live: Live | None = None,
        applied: AppliedLists | None = None,
        hear_applied: Callable[[Set[GatewayId]], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._applied = applied or AppliedLists()
        self._hear_applied = hear_applied
        self._siblings = SiblingLists()
        self._live = live or Live()
        self._settings = settings
        self._statuses = Statuses(store)
        self._tell = TellOnce(log)
        self._objects, self._unseen = ObjectIndex(), Unseen()
        self._parts = Parts(settings.pools, self._built)
        self._snapshots = NodeSnapshots(self._parts)
        self._sees_more = False
        """Whether nodes keep something of which it is known by now what it is to be."""
        self._dirty = WaitingGateways()
        self._wake = asyncio.Event()
        self._revisions = Revisions(settings.revisions)
        self._judge = Judge(partial(validate, settings.envoy_binary))
        self._configurations = Configurations(self._validate, self._touch, self._revisions)
        self.authorize = Authorizer(store, self._is_known)
        new_stream = partial(UnpacedStream, stays=self._unseen.hides)
        self._server = DeltaServer(
            self,
            self.authorize,
            new_stream=new_stream,
            on_room=self._wake.set,
            client_of=client_name,
            most_streams=_MOST_STREAMS,
        )
        self._saver = StatusSaver(self._save_status, self._touch_later, self._tell, _AGAIN_SECONDS)
        self.port = settings.port

    def tunnel_evidence(self, tunnel: Tunnel) -> Evidence:
        """What the ends of a deleted tunnel are known to have. May be called from any thread."""
        name = tunnel.spec.epic_node
        node = self._objects.node(name)
        workload = workload_place(tunnel)
        applied, silent = self._live.applied(workload)
        return Evidence(
            epic_node_known=self._unseen.has(Node, "", name) if node is None else not node.status.lost,
            # In this order: it goes from what is built to what is published, and then to the node.
            epic_end=self._parts.may_give(GatewayId(tunnel.account, tunnel.spec.proxy), name, tunnel.name)
            or self._server.may_have(name, TUNNEL, tunnel.name)
            or self._live.end(epic_place(tunnel), int(tunnel.name)) is not None,
            workload_end=self._live.may_have(workload, int(tunnel.name)),
            applied=applied,
            silent_since=datetime.now(UTC) - timedelta(seconds=silent),
        )

    async def run(self, failures: Counter[str] | None = None) -> None:
        """Serve until cancelled; `failures` counts how often it had to begin again."""
        try:
            async with self._listening():
                await keep_running("xDS", self._follow, failures=failures)
        finally:
            await self._configurations.end()

    def on_ack(self, node_id: str, type_url: str, acked: Mapping[str, str]) -> None:
        """Nothing to do: what a node serves is in its reports."""

    def on_nack(self, node_id: str, type_url: str, message: str) -> None:
        """Nothing to do: the node's report carries Envoy's words."""

    def on_disconnect(self, node_id: str) -> None:
        """Nothing to do: silence is noticed by its reports."""

    @property
    def issuer(self) -> Issuer:
        """Who renews the certificates of agents."""
        return self._settings.issuer

    async def report(self, report: epic_pb2.NodeReport) -> None:
        """Take in what a node says of itself."""
        self._live.heartbeats.hear(report.node, now())
        gateways = self._parts.gateways_on(report.node)
        if not report.instances_only:
            # With thousands of tunnels it takes a while, which what is to be published must not wait for.
            await asyncio.to_thread(
                lambda: self._live.take(
                    Place("", "", report.node),
                    ends(report),
                    drops(report),
                    second_chances=second_chances(report, gateways),
                )
            )
        lists = applied_siblings(report, gateways)
        heard = self._applied.take(report.node, lists, silent_addresses(report))
        if heard:
            self._hear_applied(heard)
        try:
            await self._statuses.reported(gateways, report)
        except Exception as error:  # the node says the same again in a few seconds
            self._tell.fault(f"taking in reports of node {report.node}", error)
        else:
            self._tell.success(f"taking in reports of node {report.node}")

    async def _follow(self) -> None:
        revision = await asyncio.to_thread(self._read_all)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(revision))
            tasks.create_task(self._publish_changes())
            tasks.create_task(self._saver.run())
            tasks.create_task(self._notice_silence())

    def _read_all(self) -> int:
        revision = self._store.revision
        objects = ObjectIndex()
        for kind in KINDS:
            for obj in self._store.list(kind):
                objects.apply(Change(revision, kind.kind, obj.account, obj.name, obj))
        tunnels = self._store.list(Tunnel)
        self._live.remember_listings(max((int(t.name) for t in tunnels), default=0))
        self._objects, self._siblings = objects, SiblingLists()
        self._unseen.begin_anew(self._store.unreadable(), tunnels)
        for lists in self._store.list(Siblings):
            self._siblings.apply(Change(revision, Siblings.kind, lists.account, lists.name, lists))
        for gateway in self._revisions.saved() - set(objects.gateways()) - self._unseen.gateways():
            self._revisions.forget(gateway)
        return revision

    async def _watch(self, revision: int) -> None:
        self._snapshots.begin_anew(self._siblings)
        self._dirty.add([*self._objects.gateways(), *self._parts.gateways()])
        self._wake.set()
        async for change in self._store.watch(revision):
            if change.kind == NodeRevocation.kind:
                self._server.reauthorize(change.name)
            if change.kind == Node.kind and self._is_told(change):
                self._snapshots.restate(change.name)
            relisted = self._siblings.apply(change)
            self._snapshots.relist(relisted, GatewayId(change.account, change.name))
            for gateway in self._objects.apply(change):
                self._touch(gateway)
            if self._unseen.release(change.kind, change.account, change.name):
                self._see_anew(change)
            self._wake.set()

    def _see_anew(self, change: Change) -> None:
        """What could not be read can be, or is gone."""
        if change.kind == GWProxy.kind and change.object is None:
            self._dirty.add([GatewayId(change.account, change.name)])
        self._dirty.add(g for g in self._objects.gateways() if change.account in {"", g.account})
        self._sees_more = True

    def _is_told(self, change: Change) -> bool:
        """Whether a node is told of the change of its own object: most are reports of its own."""
        before, after = self._objects.node(change.name), change.object
        if before is None or not isinstance(after, Node):
            return True
        return told(before) != told(after)

    def _touch(self, gateway: GatewayId) -> None:
        self._dirty.add([gateway])
        self._wake.set()

    def _touch_later(self, gateway: GatewayId) -> None:
        asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._touch, gateway)

    async def _publish_changes(self) -> None:
        # An agent that hears of half of its gateways would drop the others: at first wait for all.
        complete, unready = False, None
        while True:
            await self._wake.wait()
            await asyncio.sleep(_DEBOUNCE_SECONDS)
            self._wake.clear()
            # What is of other accounts is published before an account's next ones.
            for gateway in self._dirty.take(_OF_AN_ACCOUNT if complete else None):
                self._try_to_refresh(gateway)
                await asyncio.sleep(0)  # others may have little to do
            if self._dirty:
                self._wake.set()
            if not complete:
                # Mostly it is the one of the last time that all wait for.
                if unready is None or self._objects.proxy(unready) is None or self._is_ready(unready):
                    unready = next((g for g in self._objects.gateways()[::-1] if not self._is_ready(g)), None)
                complete = unready is None
                # What was built stays, mostly: a full collection over all of it takes more than a second.
                gc.freeze()
            if complete:
                await self._publish()

    def _is_ready(self, gateway: GatewayId) -> bool:
        """Whether all was tried that there is to be published of the gateway."""
        busy = gateway in self._dirty or self._parts.is_building(gateway)
        return self._configurations.is_settled(gateway) and (self._parts.of(gateway) is not None or not busy)

    def _try_to_refresh(self, gateway: GatewayId) -> None:
        """Compute its parts anew; a gateway that is at fault keeps what it has, and holds up no other."""
        what = f"preparing gateway {gateway}"
        try:
            self._refresh(gateway)
        except Exception as error:
            self._tell.fault(what, error)
            self._touch_later(gateway)
        else:
            self._tell.success(what)

    def _refresh(self, gateway: GatewayId) -> None:
        inputs = self._objects.inputs(gateway)
        if inputs is None:
            if not self._unseen.has(GWProxy, *gateway):
                self._forget(gateway)
            return
        keeps = self._unseen.keeps_configuration(inputs, self._objects)
        if keeps:
            self._configurations.keep(inputs, KEPT)
        else:
            self._configurations.want(inputs)
        if not self._configurations.is_settled(gateway):
            return
        accepted = self._configurations.accepted(gateway)
        if keeps:
            inputs = self._kept(inputs, accepted)
        if accepted is None and keeps:
            self._unseen.freeze(inputs)
        else:
            self._snapshots.collect(self._parts.want(inputs, accepted))
            if not self._parts.is_building(gateway) and self._unseen.note(inputs):
                self._sees_more = True
        parts = self._parts.of(gateway)
        revision = accepted.bundle.revision if accepted else inputs.proxy.status.revision if keeps else ""
        problem = self._configurations.problem(gateway) or (parts.problem if parts else None)
        left_out = accepted.left_out if accepted else 0
        if configured(inputs.proxy, revision, problem, left_out) != inputs.proxy:
            self._saver.note(gateway, revision, problem, left_out)

    def _kept(self, inputs: Inputs, accepted: Accepted | None) -> Inputs:
        """What there is to tell of a gateway that keeps its configuration."""
        if accepted is not None:
            kept = frozenset(cluster.service for cluster in accepted.routing.clusters)
            inputs = self._objects.inputs(inputs.proxy.id, kept) or inputs
        return replace(inputs, unseen=self._unseen.services(inputs, self._objects))

    def _forget(self, gateway: GatewayId) -> None:
        self._snapshots.collect(self._parts.forget(gateway))
        self._configurations.forget(gateway)
        if self._unseen.forget(gateway):
            self._sees_more = True

    def _built(self, gateway: GatewayId, changes: NodeChanges) -> None:
        self._snapshots.collect(changes)
        self._touch(gateway)

    async def _publish(self) -> None:
        if self._sees_more:
            self._sees_more = False
            self._snapshots.begin_anew(self._siblings)
        for name in self._node_names():
            if self._snapshots.is_behind(name) and self._server.takes(name):
                await self._snapshots.make(name)
                node = self._objects.node(name)
                if node is not None or self._unseen.has(Node, "", name):
                    self._server.publish(name, *self._snapshots.bring_up(name, node))
        for name in self._server.published - self._node_names():
            # Nothing more is heard of it; it learns of its removal when it is refused.
            self._snapshots.forget(name)
            self._server.forget(name)
            self._server.reauthorize(name)

    def _is_known(self, node: str) -> bool:
        return node in self._server.published or self._store.exists(Node, "", node)

    def _node_names(self) -> set[str]:
        unreadable = self._unseen.nodes()
        return {node.name for node in self._objects.nodes() if not node.status.lost} | unreadable

    async def _notice_silence(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SILENCE_SECONDS)
            for node in self._server.nodes:
                # A certificate that has ended is worth nothing on a connection that is open either.
                self._server.reauthorize(node)
            for node in self._node_names():
                if self._live.heartbeats.of(node).silence > _SILENCE:
                    await self._note_silence(node)

    async def _note_silence(self, node: str) -> None:
        what = f"noting that node {node} is silent"
        try:
            await self._statuses.silent(self._parts.gateways_on(node), node)
        except Exception as error:  # it is still silent the next time
            self._tell.fault(what, error)
        else:
            self._tell.success(what)

    async def _validate(self, bundle: Bundle) -> None:
        await self._judge.judge(bundle)

    async def _save_status(
        self, gateway: GatewayId, revision: str, problem: EpicError | None, left_out: int
    ) -> None:
        await self._statuses.configured(gateway, revision, problem, left_out)

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        settings, agents = self._settings, AgentService(self)
        files = ServerFiles(settings.certificate, settings.key, settings.issuer.certificate)
        async with listening(self._server, agents, files, settings.listen, settings.port) as self.port:
            yield
