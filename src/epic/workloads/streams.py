# SPDX-License-Identifier: Apache-2.0
"""The streams of workload nodes: each is brought to what its node is to have, for as long as it is open."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from ipaddress import IPv6Network
from typing import Any

import grpc
from envoy.service.discovery.v3 import discovery_pb2 as pb

from epic.ads.delta.connection import Refusal
from epic.ads.delta.kept import Context, KeepLimits
from epic.ads.delta.server import DeltaServer
from epic.ads.delta.servicer import DeltaServicer
from epic.ads.delta.unpaced import UnpacedStream
from epic.live import Live, Place
from epic.log_rate import LogRate
from epic.model.resources import Account, AccountSpec
from epic.reconcile.counts.counting import count
from epic.store.interface import Store
from epic.supervise import TellOnce
from epic.tunnels import WorkloadNode
from epic.workloads.followed import FollowedAccount, FollowedAccounts
from epic.workloads.identity import WorkloadAuthorizer, WorkloadCaller, WorkloadIdentity, workload_caller
from epic.workloads.memory import keep_refusal
from epic.workloads.requests import StreamRequests
from epic.workloads.tunnels import NodeTunnels

log = logging.getLogger(__name__)

OF_NODE = 4
"""Streams of one workload node: an agent that comes again may have left some that nobody knows are dead."""
_REMEMBERED_BYTES = 64 << 20
# More tunnels than so many are compared aside: some milliseconds.
_MOST_AT_ONCE = 1000
_AGAIN_SECONDS = 2.0


class _Fed:
    """A node that has streams, and the task that publishes for it."""

    def __init__(self) -> None:
        self.streams = 0
        self.accounts: Counter[str] = Counter()
        """Its own with each stream, and that of the user for whom the stream's certificate was made."""
        self.task: asyncio.Task[None] | None = None


class WorkloadStreams(DeltaServicer):
    """Serves each workload node what is its own. It belongs to the event loop in which it is used first.

    An account may have twice as many streams as workload nodes, and four of one node, the newest ones. What
    they keep is limited for all of an account together.
    """

    def __init__(self, store: Store, live: Live, inside: IPv6Network) -> None:
        """The inside addresses of IPv6 are of the network `inside`."""
        self._store = store
        self._inside = inside
        self._accounts = FollowedAccounts(store, live, self._recheck)
        self._fed: dict[str, _Fed] = {}
        self._of_account: Counter[str] = Counter()
        self._log = LogRate(log)
        self._tell = TellOnce(log)
        self.authorize = WorkloadAuthorizer(store)
        self._room = asyncio.Event()
        self._server = DeltaServer(
            self,
            self.authorize,
            new_stream=UnpacedStream,
            keep=KeepLimits(_REMEMBERED_BYTES, _account, self._keep_refusal),
            on_room=self._tell_room,
            client_of=_client,
            most_streams=OF_NODE,
        )

    @property
    def nodes(self) -> frozenset[str]:
        """Those that have a stream."""
        return self._server.nodes

    async def DeltaAggregatedResources(  # noqa: N802 - the name that gRPC calls
        self, request_iterator: AsyncIterator[pb.DeltaDiscoveryRequest], context: Context
    ) -> None:
        """Serve one stream until the client ends it."""
        found = await identified(self.authorize, context, self._log)
        place = found.identity.place
        if (words := self._no_room(place)) is not None:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, words)
        requests = StreamRequests(request_iterator)
        async with self._feeding(found.identity):
            end = (found.until - datetime.now(UTC)).total_seconds() + 1
            loop = asyncio.get_running_loop()
            timer = loop.call_later(end, self._server.reauthorize, place.id)
            try:
                await self._server.DeltaAggregatedResources(requests.read(), context)
            finally:
                timer.cancel()
        if requests.fault is not None:
            self._log.warning("ended a stream of workload node %s: %s", place.id, requests.fault)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, requests.fault)

    def on_ack(self, node_id: str, type_url: str, acked: Mapping[str, str]) -> None:
        """Nothing to do: what a node has carried out is in its reports."""

    def on_nack(self, node_id: str, type_url: str, message: str) -> None:
        """Nothing to do: it is logged."""

    def on_disconnect(self, node_id: str) -> None:
        """Nothing to do: silence is noticed by its reports."""

    def _keep_refusal(self, account: str, kept: int, total: int) -> str | None:
        found = self._store.find_readable(Account, "", account)
        limit = (found.spec if found else AccountSpec()).tunnel_limit
        # Tunnels that an account still has are named after its limit was lowered.
        return keep_refusal(account, max(limit, AccountSpec().tunnel_limit), kept, total)

    def _no_room(self, place: Place) -> str | None:
        account = self._store.find_readable(Account, "", place.account)
        limit = (account.spec if account else AccountSpec()).workload_node_limit
        # Nodes that an account has still get in after its limit was lowered.
        most = 2 * max(limit, AccountSpec().workload_node_limit)
        if self._of_account[place.account] < most:
            return None
        return (
            f"account {place.account!r} has {most} streams of tunnels open and may have no more, twice as "
            "many as workload nodes; ask the platform's administrators for a higher workloadNodeLimit"
        )

    @asynccontextmanager
    async def _feeding(self, identity: WorkloadIdentity) -> AsyncIterator[None]:
        """Publish for the node while the block takes, for all its streams at once."""
        place = identity.place
        name, concerned = place.id, {identity.account, identity.user_account}
        with self._accounts.of(place.account) as followed:
            fed = self._fed.setdefault(name, _Fed())
            fed.streams += 1
            fed.accounts.update(concerned)
            count(self._of_account, place.account, 1)
            if fed.task is None:
                fed.task = asyncio.create_task(self._feed(name, place, followed), name=f"feed {name}")
            try:
                yield
            finally:
                fed.streams -= 1
                fed.accounts.subtract(concerned)
                count(self._of_account, place.account, -1)
                if not fed.streams:
                    fed.task.cancel()
                    del self._fed[name]
                    self._server.forget(name)

    async def _feed(self, name: str, place: Place, followed: FollowedAccount) -> None:
        what = f"telling workload node {name}"
        while True:
            try:
                await self._publish_all(name, WorkloadNode(place.cluster, place.node), followed)
            except Exception as error:  # it keeps what it has, and holds up no other
                self._tell.fault(what, error)
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _publish_all(self, name: str, workload: WorkloadNode, followed: FollowedAccount) -> None:
        tunnels = NodeTunnels(self._inside)
        async with aclosing(followed.news(workload, partial(self._wait_for_room, name))) as news:
            async for revision, told in news:
                find = partial(tunnels.find_change, told)
                is_large = len(told.tunnels) > _MOST_AT_ONCE
                change = await asyncio.to_thread(find) if is_large else find()
                differing = tunnels.take(change, revision)
                if differing is not None:
                    self._server.publish(name, tunnels.snapshot, differing)

    async def _wait_for_room(self, name: str) -> None:
        """Until the node has been sent what was published for it."""
        while True:
            room = self._room
            if self._server.takes(name):
                return
            await room.wait()

    def _tell_room(self) -> None:
        self._room.set()
        self._room = asyncio.Event()

    def _recheck(self, account: str) -> None:
        """End the streams whose credentials are worth nothing any more; of all accounts, if none is named."""
        for name, fed in list(self._fed.items()):
            if not account or fed.accounts[account]:
                self._server.reauthorize(name)


def _client(context: Context) -> str:
    """Whose stream it is: before it may begin, it was asked for a certificate."""
    found = workload_caller(context)
    return found.identity.place.id if found is not None else ""


def _account(context: Context) -> str:
    found = workload_caller(context)
    return found.identity.account if found is not None else ""


async def identified(
    authorize: WorkloadAuthorizer, context: grpc.aio.ServicerContext[Any, Any], refused: LogRate
) -> WorkloadCaller:
    """Who calls; ends the call when that is no workload node, or one whose certificate is worth nothing."""
    found = workload_caller(context)
    refusal = Refusal("no certificate of a workload node") if found is None else authorize.refusal(found)
    if found is None or refusal is not None:
        assert refusal is not None  # noqa: S101
        refused.warning("refused a workload node: %s", refusal.message)
        await refusal.abort(context)
    return found
