"""The local xDS server: a Unix socket on which this node's Envoys get what the control plane sent last."""

from __future__ import annotations

import grp
import logging
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3 import discovery_pb2 as pb

from epic.ads.server import Context, DeltaServer, Refusal
from epic.agent.gateway.envoy.registry import EnvoyRegistry, gateway_of

log = logging.getLogger(__name__)

_STOP_SECONDS = 0.5


class LocalServer(DeltaServer):
    """Also tells the registry what an Envoy has when it comes: it may have outlived an earlier agent."""

    def __init__(self, registry: EnvoyRegistry) -> None:
        super().__init__(registry, self._refusal)
        self._registry = registry

    async def DeltaAggregatedResources(  # noqa: N802 - the name that gRPC calls
        self, request_iterator: AsyncIterator[pb.DeltaDiscoveryRequest], context: Context
    ) -> None:
        """Serve one stream until the Envoy ends it."""
        await super().DeltaAggregatedResources(self._observed(request_iterator), context)

    async def _observed(
        self, requests: AsyncIterator[pb.DeltaDiscoveryRequest]
    ) -> AsyncIterator[pb.DeltaDiscoveryRequest]:
        node_id = ""
        seen: set[str] = set()
        async for request in requests:
            if not node_id:
                node_id = request.node.id
                self._registry.on_connect(node_id)
            if request.type_url not in seen:
                seen.add(request.type_url)
                held = dict(request.initial_resource_versions)
                self._registry.on_first_request(node_id, request.type_url, held)
            yield request

    def _refusal(self, node_id: str, _: Context) -> Refusal | None:
        if gateway_of(node_id) in self._registry.envoys:
            return None
        return Refusal(f"no instance of a gateway on this node has the node id {node_id!r}")


async def serve(server: LocalServer, socket: Path, group: str) -> grpc.aio.Server:
    """Open the socket for root and the group."""
    listener = grpc.aio.server()
    ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(server, listener)
    previous = os.umask(0o117)
    try:
        listener.add_insecure_port(f"unix:{socket}")
    finally:
        os.umask(previous)
    await listener.start()
    _give_to_group(socket, group)
    return listener


async def stop(listener: grpc.aio.Server) -> None:
    """End the streams; Envoys go on with what they have and come back."""
    await listener.stop(_STOP_SECONDS)


def _give_to_group(socket: Path, group: str) -> None:
    try:
        grp.getgrnam(group)
    except KeyError:
        log.warning("there is no group %s: only root's Envoys can reach %s", group, socket)
        return
    shutil.chown(socket, "root", group)
    socket.chmod(0o660)
