# SPDX-License-Identifier: Apache-2.0
"""A delta-ADS server on grpc.aio: every stream has its own task and state; none waits for another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import grpc
from envoy.service.discovery.v3 import discovery_pb2 as pb

from epic.ads.delta.connection import NODE_ACCEPTED, Connection, Refusal, first_of, held_at_first
from epic.ads.delta.kept import Context, KeepLimits, Kept
from epic.ads.delta.protocol import Acked, PacedStream, Refused, Stream
from epic.ads.delta.servicer import DeltaServicer
from epic.ads.snapshot import Differing, Snapshot
from epic.log_rate import LogRate

log = logging.getLogger(__name__)

_WORDS = 500
_NAMES = 5

Authorize = Callable[[str, Context], Refusal | None]
"""Given the node id and the context: why the node may not be served, or None."""


class Listener(Protocol):
    """Hears what the nodes answer. Called in the event loop: must not block."""

    def on_ack(self, node_id: str, type_url: str, acked: Mapping[str, str]) -> None:
        """The node has taken a response; `acked` is all of the type that it now holds, name to version.

        It is kept up to date: who wants to compare later copies it.
        """

    def on_nack(self, node_id: str, type_url: str, message: str) -> None:
        """The node has refused a response and keeps what it had."""

    def on_disconnect(self, node_id: str) -> None:
        """The node's last stream has ended."""


class DeltaServer(DeltaServicer):
    """Brings every node's streams to the snapshot that was published for the node.

    `new_stream` makes them as the clients need it (see `epic.ads.delta.protocol`): Envoys' are paced. A
    stream for which more would have to be kept than `keep` permits is ended. `on_room` is called when a node
    takes more of which `takes` said that it does not. A client, as `client_of` tells them apart, has
    `most_streams`: one more ends its oldest.
    """

    def __init__(
        self,
        listener: Listener,
        authorize: Authorize,
        *,
        new_stream: Callable[[], Stream] = PacedStream,
        keep: KeepLimits = KeepLimits(),  # noqa: B008 - it is frozen
        on_room: Callable[[], None] = lambda: None,
        client_of: Callable[[Context], str] = lambda _: "",
        most_streams: int = 8,
    ) -> None:
        self._new_stream = new_stream
        self._keep = keep
        self._kept = Kept(keep.refusal)
        self._on_room = on_room
        self._behind: set[str] = set()
        self._client_of = client_of
        self._most_streams = most_streams
        self._streams: dict[str, dict[Connection, None]] = {}
        self._log = LogRate(log)
        self._listener = listener
        self._authorize = authorize
        self._snapshots: dict[str, Snapshot] = {}
        self._connections: dict[str, set[Connection]] = {}

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes that have a stream."""
        return frozenset(self._connections)

    @property
    def published(self) -> frozenset[str]:
        """The nodes for which something was published."""
        return frozenset(self._snapshots)

    def takes(self, node_id: str) -> bool:
        """Whether to publish more for the node now: not while its streams have much of the last to send.

        What changes without a pause so becomes a state that is sent whole, and then the next one. A
        connection that is dead, which nobody has noticed yet, does not count beside one that is not.
        """
        streams = [c.stream for c in self._connections.get(node_id, ()) if not c.ended]
        if node_id in self._snapshots and streams and all(stream.is_behind for stream in streams):
            self._behind.add(node_id)
            return False
        self._behind.discard(node_id)
        return True

    def publish(self, node_id: str, snapshot: Snapshot, differing: Differing | None = None) -> None:
        """Replace what the node should have; the difference goes out to its streams at once.

        The snapshot must not be changed afterwards: publish another. Or, to clients whose streams are not
        paced, publish it again: changed in place since the event loop's last turn, and with `differing`.
        """
        self._snapshots[node_id] = snapshot
        for connection in self._connections.get(node_id, ()):
            if differing is not None:
                connection.stream.touch(differing)
            connection.wake.set()

    def may_have(self, node_id: str, type_url: str, name: str) -> bool:
        """Whether the node may have a resource, or may get it; a node without a stream may have any.

        May be called from any thread.
        """
        if name in self._snapshots.get(node_id, {}).get(type_url, {}):
            return True
        streams = [c.stream for c in list(self._connections.get(node_id, ())) if not c.ended]
        return not streams or any(stream.may_have(type_url, name) for stream in streams)

    def forget(self, node_id: str) -> None:
        """Stop serving the node: it keeps what it has, and hears nothing until it is published again."""
        self._snapshots.pop(node_id, None)
        self._behind.discard(node_id)

    def reauthorize(self, node_id: str) -> None:
        """End those of the node's streams that may not be served any more."""
        for connection in self._connections.get(node_id, ()):
            refusal = self._authorize(node_id, connection.context)
            if refusal is not None:
                connection.refuse(refusal)

    async def DeltaAggregatedResources(  # noqa: N802 - the name that gRPC calls
        self,
        request_iterator: AsyncIterator[pb.DeltaDiscoveryRequest],
        context: Context,
    ) -> None:
        """Serve one stream until the client ends it."""
        refusal = await self._serve_client(request_iterator, context)
        if refusal is not None:
            # It may take long: who does not read is not told either. By now nothing of the stream is kept.
            await refusal.abort(context)

    async def _serve_client(
        self, requests: AsyncIterator[pb.DeltaDiscoveryRequest], context: Context
    ) -> Refusal | None:
        """Serve a stream until its end; returns why it was ended, if it was."""
        connection = Connection(context, self._new_stream(), self._keep.owner_of(context), self._kept)
        node_id = client = self._client_of(context)
        with self._counted(client, connection):
            first = await first_of(requests, connection)
            if first is not None:
                node_id = first.node.id
                del first
                refusal = self._authorize(node_id, context)
                if refusal is not None:
                    self._log.warning("refused node %r: %s", node_id[:_WORDS], refusal.message[:_WORDS])
                    return refusal
                self._connections.setdefault(node_id, set()).add(connection)
                try:
                    # Only now: what is revoked from here on ends the stream.
                    await context.send_initial_metadata(((NODE_ACCEPTED, "true"),))
                    await self._serve_until_refused(node_id, connection, requests)
                finally:
                    self._drop(node_id, connection)
        if not connection.refused.done():
            return None
        refusal = connection.refused.result()
        self._log.warning("ended the stream of node %r: %s", node_id[:_WORDS], refusal.message)
        return refusal

    @contextmanager
    def _counted(self, client: str, connection: Connection) -> Iterator[None]:
        """One stream more: a client that comes often may have left some that nobody knows are dead."""
        streams = self._streams.setdefault(client, {})
        streams[connection] = None
        if len(streams) > self._most_streams:
            oldest = next(iter(streams))
            del streams[oldest]
            oldest.refuse(Refusal("this client has opened newer streams"))
        try:
            yield
        finally:
            connection.end()
            streams.pop(connection, None)
            if not streams and self._streams.get(client) is streams:
                del self._streams[client]

    async def _serve_until_refused(
        self, node_id: str, connection: Connection, requests: AsyncIterator[pb.DeltaDiscoveryRequest]
    ) -> None:
        reader = asyncio.create_task(connection.read(requests))
        serving = asyncio.create_task(self._serve(node_id, connection))
        try:
            # A stream that may not be served any more ends at once, also while it is being written to.
            ends: set[asyncio.Future[Any]] = {serving, connection.refused}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reader, serving):
                task.cancel()
            await asyncio.wait([reader, serving])
        if not serving.cancelled():
            serving.result()

    async def _serve(self, node_id: str, connection: Connection) -> None:
        while not connection.ended:
            await connection.wake.wait()
            connection.wake.clear()
            for request in connection.take():
                held = await held_at_first(request)
                self._tell(node_id, connection.stream.receive(request, held))
                await asyncio.sleep(0)  # while much was sent, many answers may have come
            connection.insist_later()
            if self._is_too_much(connection):
                return
            snapshot = self._snapshots.get(node_id)
            if snapshot is None:
                continue
            for response in connection.stream.advance(snapshot):
                if not connection.count():
                    return
                if response is None:
                    await asyncio.sleep(0)
                else:
                    await connection.context.write(response)
            self._tell_of_room(node_id)

    def _is_too_much(self, connection: Connection) -> bool:
        most = self._keep.most_remembered
        if most is None or connection.stream.remembered <= most:
            return False
        words = "more was asked for than is kept for one client"
        connection.refuse(Refusal(words, code=grpc.StatusCode.RESOURCE_EXHAUSTED))
        return True

    def _tell(self, node_id: str, outcome: Acked | Refused | None) -> None:
        if isinstance(outcome, Acked):
            self._listener.on_ack(node_id, outcome.type_url, outcome.held)
        elif isinstance(outcome, Refused):
            self._log.warning(
                "node %s refused %s of type %s: %s",
                node_id,
                outcome.names[:_NAMES],
                outcome.type_url[:_WORDS],
                outcome.message[:_WORDS],
            )
            self._listener.on_nack(node_id, outcome.type_url, outcome.message)

    def _tell_of_room(self, node_id: str) -> None:
        if node_id in self._behind and self.takes(node_id):
            self._on_room()

    def _drop(self, node_id: str, connection: Connection) -> None:
        connections = self._connections[node_id]
        connections.discard(connection)
        if not connections:
            del self._connections[node_id]
            self._listener.on_disconnect(node_id)
        self._tell_of_room(node_id)
