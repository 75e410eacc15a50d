# SPDX-License-Identifier: Apache-2.0
"""The control plane's ADS service: from the store's changes to what every EPIC node should have."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc

from epic.ads.agents import AgentService
from epic.ads.delta.protocol import UnpacedStream
from epic.ads.delta.server import DeltaServer
from epic.ads.desired.configurations import Configurations
from epic.ads.desired.nodes import NodeSnapshots
from epic.ads.desired.objects import KINDS, ObjectIndex
from epic.ads.desired.parts import NodeChanges, Parts
from epic.ads.desired.revisions import Revisions
from epic.ads.desired.siblings import SiblingLists
from epic.ads.identity.authorization import Authorizer
from epic.ads.identity.credentials import ServerFiles, server_credentials
from epic.ads.identity.issuer import Issuer
from epic.ads.reports import (
    applied_siblings,
    configured,
    drops,
    ends,
    second_chances,
    silent_addresses,
)
from epic.ads.snapshot import TUNNEL
from epic.ads.statuses import Statuses
from epic.envoy.resources import Bundle
from epic.envoy.validate import validate
from epic.errors import EpicError, NotWritable
from epic.ipam.networks import DEFAULT_POOLS, Pools
from epic.lifecycle.tunnels import Evidence
from epic.live import Live, Place, epic_place, workload_place
from epic.model.base import now
from epic.model.nodes import NodeRevocation
from epic.model.resources import GWProxy, Node, Tunnel
from epic.model.siblings import Siblings
from epic.model.values.naming import GatewayId
from epic.proto import epic_pb2, epic_pb2_grpc
from epic.siblings.heard import AppliedLists
from epic.store.interface import Change, Store
from epic.supervise import TellOnce, keep_running

log = logging.getLogger(__name__)

_DEBOUNCE_SECONDS = 0.005
_SILENCE = timedelta(seconds=30)
_WATCH_SILENCE_SECONDS = 5.0
_AGAIN_SECONDS = 2.0
_SERVER_OPTIONS = (
    # Else connections that say nothing are kept for two minutes.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # A node that comes back names all that it has: up to 262,144 endpoints, by gateway and address.
    ("grpc.max_receive_message_length", 64 << 20),
)


@dataclass(frozen=True)
class AdsSettings:
    """Where to listen, with which certificates, which Envoy validates, where accepted revisions are kept."""

    listen: str
    port: int
    certificate: Path
    key: Path
    issuer: Issuer
    envoy_binary: Path
    revisions: Path | None = None
    pools: Pools = DEFAULT_POOLS


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
        self._objects = ObjectIndex()
        self._parts = Parts(settings.pools, self._built)
        self._snapshots = NodeSnapshots(self._parts)
        self._dirty: set[GatewayId] = set()
        self._wake = asyncio.Event()
        self._revisions = Revisions(settings.revisions)
        self._configurations = Configurations(self._validate, self._touch, self._revisions)
        self.authorize = Authorizer(store, self._is_known)
        self._server = DeltaServer(self, self.authorize, new_stream=UnpacedStream)
        self._unsaved: dict[GatewayId, tuple[str, EpicError | None]] = {}
        self._save = asyncio.Event()
        self.port = settings.port

    def tunnel_evidence(self, tunnel: Tunnel) -> Evidence:
        """What the ends of a deleted tunnel are known to have. May be called from any thread."""
        name = tunnel.spec.epic_node
        node = self._objects.node(name)
        workload = workload_place(tunnel)
        applied, silent = self._live.applied(workload)
        return Evidence(
            epic_node_known=node is not None and not node.status.lost,
            # In this order: it goes from what is built to what is published, and then to the node.
            epic_end=self._parts.may_give(GatewayId(tunnel.account, tunnel.spec.proxy), name, tunnel.name)
            or self._server.may_have(name, TUNNEL, tunnel.name)
            or self._live.end(epic_place(tunnel), int(tunnel.name)) is not None,
            workload_end=self._live.may_have(workload, int(tunnel.name)),
            applied=applied,
            silent_since=datetime.now(UTC) - timedelta(seconds=silent),
        )

    async def run(self) -> None:
        """Serve until cancelled."""
        async with self._listening():
            await keep_running("xDS", self._follow)

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
            tasks.create_task(self._save_statuses())
            tasks.create_task(self._notice_silence())

    def _read_all(self) -> int:
        revision = self._store.revision
        objects = ObjectIndex()
        for kind in KINDS:
            for obj in self._store.list(kind):
                objects.apply(Change(revision, kind.kind, obj.account, obj.name, obj))
        self._live.remember_listings(max((int(t.name) for t in self._store.list(Tunnel)), default=0))
        self._objects, self._siblings = objects, SiblingLists()
        for lists in self._store.list(Siblings):
            self._siblings.apply(Change(revision, Siblings.kind, lists.account, lists.name, lists))
        unreadable = {GatewayId(u.key.account, u.key.name) for u in self._store.unreadable(GWProxy)}
        for gateway in self._revisions.saved() - set(objects.gateways()) - unreadable:
            self._revisions.forget(gateway)
        return revision

    async def _watch(self, revision: int) -> None:
        self._snapshots.begin_anew(self._siblings)
        self._dirty.update(self._objects.gateways(), self._parts.gateways())
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
            self._wake.set()

    def _is_told(self, change: Change) -> bool:
        """Whether a node is told of the change of its own object: most are reports of its own."""
        before, after = self._objects.node(change.name), change.object
        if before is None or not isinstance(after, Node):
            return True
        return _told(before) != _told(after)

    def _touch(self, gateway: GatewayId) -> None:
        self._dirty.add(gateway)
        self._wake.set()

    async def _publish_changes(self) -> None:
        # An agent that hears of half of its gateways would drop the others: at first wait for all.
        complete, unready = False, None
        while True:
            await self._wake.wait()
            await asyncio.sleep(_DEBOUNCE_SECONDS)
            self._wake.clear()
            dirty, self._dirty = self._dirty, set()
            for gateway in dirty:
                self._try_to_refresh(gateway)
                await asyncio.sleep(0)  # others may have little to do
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
            asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._touch, gateway)
        else:
            self._tell.success(what)

    def _refresh(self, gateway: GatewayId) -> None:
        inputs = self._objects.inputs(gateway)
        if inputs is None:
            self._snapshots.collect(self._parts.forget(gateway))
            self._configurations.forget(gateway)
            return
        self._configurations.want(inputs)
        if not self._configurations.is_settled(gateway):
            return
        accepted = self._configurations.accepted(gateway)
        self._snapshots.collect(self._parts.want(inputs, accepted))
        parts = self._parts.of(gateway)
        revision = accepted.bundle.revision if accepted else ""
        problem = self._configurations.problem(gateway) or (parts.problem if parts else None)
        if configured(inputs.proxy, revision, problem) != inputs.proxy:
            self._unsaved[gateway] = (revision, problem)
            self._save.set()

    def _built(self, gateway: GatewayId, changes: NodeChanges) -> None:
        self._snapshots.collect(changes)
        self._touch(gateway)

    async def _publish(self) -> None:
        for name in self._node_names():
            if self._snapshots.is_behind(name):
                await self._snapshots.make(name)
                if (node := self._objects.node(name)) is not None:
                    self._server.publish(name, *self._snapshots.bring_up(node))
        for name in self._server.published - self._node_names():
            # Nothing more is heard of it; it learns of its removal when it is refused.
            self._snapshots.forget(name)
            self._server.forget(name)
            self._server.reauthorize(name)

    def _is_known(self, node: str) -> bool:
        return node in self._server.published or self._store.exists(Node, "", node)

    def _node_names(self) -> set[str]:
        return {node.name for node in self._objects.nodes() if not node.status.lost}

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
        await validate(self._settings.envoy_binary, bundle)

    async def _save_statuses(self) -> None:
        while True:
            await self._save.wait()
            self._save.clear()
            unsaved, self._unsaved = self._unsaved, {}
            while unsaved:
                gateway = next(iter(unsaved))
                if not await self._try_to_save(gateway, *unsaved[gateway]):
                    # All of them would meet the same. What has come in the meantime is newer.
                    self._unsaved = {**unsaved, **self._unsaved}
                    asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._save.set)
                    break
                del unsaved[gateway]

    async def _try_to_save(self, gateway: GatewayId, revision: str, problem: EpicError | None) -> bool:
        """Note a gateway's configuration; False: nothing can be written now."""
        what = f"noting the configuration of gateway {gateway}"
        try:
            await self._statuses.configured(gateway, revision, problem)
        except NotWritable:
            return False
        except Exception as error:
            self._tell.fault(what, error)
            asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._touch, gateway)
        else:
            self._tell.success(what)
        return True

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        server = grpc.aio.server(options=_SERVER_OPTIONS)
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self._server, server)
        epic_pb2_grpc.add_AgentServiceServicer_to_server(AgentService(self), server)
        settings = self._settings
        files = ServerFiles(settings.certificate, settings.key, settings.issuer.certificate)
        credentials = server_credentials(files)
        # gRPC takes [::] for both families
        host = f"[{settings.listen}]" if ":" in settings.listen else settings.listen
        self.port = server.add_secure_port(f"{host}:{settings.port}", credentials)
        await server.start()
        try:
            yield
        finally:
            await server.stop(0.2)


def _told(node: Node) -> tuple[object, ...]:
    status = node.status
    return status.removals, status.emptied, status.lost, status.returning, status.meant_digest
