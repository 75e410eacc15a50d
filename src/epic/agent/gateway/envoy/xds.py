# SPDX-License-Identifier: Apache-2.0
"""Local xDS: a Unix socket for each gateway, on which its Envoy gets what the control plane sent last.

Who asks is known from the socket, never from the request: a gateway's socket has a directory of its own below
one that only root enters, and the unit of its Envoy has that directory bind-mounted.

The Envoy is a tenant's: what it says costs the others neither memory, files, time nor room in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import suppress
from pathlib import Path

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3 import discovery_pb2 as pb

from epic.ads.delta.connection import Refusal
from epic.ads.delta.kept import Context, KeepLimits
from epic.ads.delta.server import DeltaServer
from epic.ads.snapshot import ENVOY_TYPES, Snapshot
from epic.agent.gateway.envoy.registry import EnvoyRegistry
from epic.agent.runtime.log_once import LogOnce
from epic.agent.runtime.pace import Pace
from epic.model.values.naming import GatewayId, network_namespace

log = logging.getLogger(__name__)

SOCKET = "xds.sock"
NAMESPACES = Path("/run/netns")

_LOOK_SECONDS = 1.0
# An Envoy has one stream, and a second while the first is being given up.
_MOST_STREAMS = 8
_OPTIONS = [("grpc.max_allowed_incoming_connections", _MOST_STREAMS)]
_MOST_REMEMBERED = 16 << 20
# A request is a unit and one more for each so many bytes; a stream costs more than a request.
_BURST, _RATE = 5000.0, 500.0
_UNIT_BYTES = 8192
_STREAM_UNITS = 20.0
# Characters of its words for a refusal: they are in the node's reports, which have room for all gateways.
_REFUSAL_MAX = 1000


class GatewayServer(DeltaServer):
    """Serves one gateway's Envoy, and tells the registry what it says."""

    def __init__(self, gateway: str, registry: EnvoyRegistry) -> None:
        keep = KeepLimits(most_remembered=_MOST_REMEMBERED)
        super().__init__(_Answers(gateway, registry), self._refusal, keep=keep)
        self._pace = Pace(_BURST, _RATE)
        self._gateway = gateway
        self._node_id = GatewayId.parse(gateway).envoy_node_id
        self._registry = registry

    async def DeltaAggregatedResources(  # noqa: N802 - the name that gRPC calls
        self, request_iterator: AsyncIterator[pb.DeltaDiscoveryRequest], context: Context
    ) -> None:
        """Serve one stream until the Envoy ends it."""
        await self._pace.take(_STREAM_UNITS)
        await super().DeltaAggregatedResources(self._observed(request_iterator), context)

    def bring_to(self, snapshot: Snapshot) -> None:
        """What the Envoy is to have from now on."""
        self.publish(self._node_id, snapshot)

    async def _observed(
        self, requests: AsyncIterator[pb.DeltaDiscoveryRequest]
    ) -> AsyncIterator[pb.DeltaDiscoveryRequest]:
        """Also tell what an Envoy has when it comes: it may have outlived an earlier agent."""
        connected = False
        seen: set[str] = set()
        async for request in requests:
            await self._pace.take(1 + request.ByteSize() / _UNIT_BYTES)
            if not connected and request.node.id == self._node_id:
                connected = True
                self._registry.on_connect(self._gateway)
            if connected and request.type_url in ENVOY_TYPES and request.type_url not in seen:
                seen.add(request.type_url)
                held = dict(request.initial_resource_versions)
                self._registry.on_first_request(self._gateway, request.type_url, held)
            yield request

    def _refusal(self, node_id: str, _: Context) -> Refusal | None:
        if node_id == self._node_id:
            return None
        return Refusal(f"this is the socket of {self._node_id!r}, not of {node_id[:100]!r}")


class _Answers:
    """Hears an Envoy for the registry; see `epic.ads.delta.server.Listener`."""

    def __init__(self, gateway: str, registry: EnvoyRegistry) -> None:
        self._gateway = gateway
        self._registry = registry

    def on_ack(self, _: str, type_url: str, acked: Mapping[str, str]) -> None:
        if type_url in ENVOY_TYPES:
            self._registry.on_ack(self._gateway, type_url, acked)

    def on_nack(self, _: str, type_url: str, message: str) -> None:
        if type_url in ENVOY_TYPES:
            self._registry.on_nack(self._gateway, type_url, message[:_REFUSAL_MAX])

    def on_disconnect(self, _: str) -> None:
        self._registry.on_disconnect(self._gateway)


class _Socket:
    """A gateway's server and, while it listens, the listener and the file that is its socket."""

    def __init__(self, gateway: str, path: Path, registry: EnvoyRegistry) -> None:
        self.path = path
        self.server = GatewayServer(gateway, registry)
        self._listener: grpc.aio.Server | None = None
        self._file: tuple[int, int] | None = None

    def is_there(self) -> bool:
        """Whether an Envoy can find it."""
        return self._file is not None and self._file == _identity(self.path)

    async def listen(self) -> None:
        """Take the place of whatever is there; OSError when that cannot be."""
        await self.close()
        self.path.parent.mkdir(mode=0o711, exist_ok=True)
        # The agent's umask leaves nothing to others, and the unit's user must pass: root alone enters above.
        self.path.parent.chmod(0o711)
        listener = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=_MOST_STREAMS)
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self.server, listener)
        try:
            listener.add_insecure_port(f"unix:{self.path}")
            await listener.start()
        except RuntimeError as error:
            raise OSError(f"{self.path}: {error}") from error
        self._listener = listener
        self.path.chmod(0o666)
        self._file = _identity(self.path)

    async def close(self) -> None:
        """End the streams; an Envoy goes on with what it has and comes back."""
        listener, self._listener, self._file = self._listener, None, None
        if listener is not None:
            await listener.stop(None)


class XdsSockets:
    """The sockets of all gateways, `DIRECTORY/GATEWAY/xds.sock`; one that fails stops no other."""

    def __init__(self, registry: EnvoyRegistry, directory: Path, namespaces: Path = NAMESPACES) -> None:
        self._registry = registry
        self._directory = directory
        self._namespaces = namespaces
        self._sockets: dict[str, _Socket] = {}
        self._closing: list[_Socket] = []
        self._wake = asyncio.Event()
        self._synced = False
        self._troubles = LogOnce(log)

    def keep(self, gateways: Collection[str]) -> None:
        """Serve these gateways and no others."""
        for gateway in self._sockets.keys() - gateways:
            self._closing.append(self._sockets.pop(gateway))
            self._troubles.forget(gateway)
        for gateway in set(gateways) - self._sockets.keys():
            self._sockets[gateway] = _Socket(gateway, self._directory / gateway / SOCKET, self._registry)
        self._synced = True
        self._wake.set()

    def publish(self, gateway: str, snapshot: Snapshot) -> None:
        """What the gateway's Envoy is to have; it must not be changed afterwards."""
        self._sockets[gateway].server.bring_to(snapshot)

    async def run(self) -> None:
        """Keep every socket where its Envoy finds it, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            await self.sync()

    async def sync(self) -> None:
        """Make the sockets that are not there, remove those of gateways that are gone."""
        while self._closing:
            await self._closing.pop().close()
        if not self._synced:
            return
        for gateway, socket in list(self._sockets.items()):
            if not socket.is_there():
                await self._listen(gateway, socket)
        self._remove_stale()

    async def close(self) -> None:
        """End all streams."""
        await asyncio.gather(*(socket.close() for socket in [*self._sockets.values(), *self._closing]))

    async def _listen(self, gateway: str, socket: _Socket) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            await socket.listen()
        except OSError as error:
            self._troubles.report(gateway, f"gateway {gateway} has no xDS socket: {error}")
        else:
            self._troubles.report(gateway, "")

    def _remove_stale(self) -> None:
        """What is left of gateways that are gone.

        The unit of a network namespace makes the directory after the namespace. So that of a gateway which we
        have not heard of yet is never taken for a left one.
        """
        for directory in self._directory.glob("*"):
            gateway = directory.name
            if gateway not in self._sockets and not (self._namespaces / network_namespace(gateway)).exists():
                with suppress(OSError):
                    (directory / SOCKET).unlink(missing_ok=True)
                    directory.rmdir()


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file this is; None: there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino)
