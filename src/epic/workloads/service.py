# SPDX-License-Identifier: Apache-2.0
"""The server that workload nodes connect to, apart from that of EPIC nodes: these belong to tenants."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc

from epic.ads.identity.admission import Admission
from epic.ads.identity.credentials import ServerFiles, server_credentials
from epic.ads.identity.issuer import Issuer
from epic.ipam.networks import DEFAULT_POOLS, Pools
from epic.live import Live
from epic.proto import epic_pb2_grpc
from epic.store.interface import Store
from epic.workloads.agents import WorkloadAgents
from epic.workloads.identity import refuse_others
from epic.workloads.streams import WorkloadStreams

_OPTIONS = (
    # Else connections that say nothing are kept for two minutes.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 60_000),
    # A node that comes back names all its tunnels, of 40 bytes each: 78,000. Its programs take 16,384.
    ("grpc.max_receive_message_length", 3 << 20),
    # The stream, a report, a renewal, and what was given up a moment ago.
    ("grpc.max_concurrent_streams", 8),
    # A node that vanished without a word is noticed; its agent asks as often.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
_STOP_SECONDS = 0.2


@dataclass(frozen=True)
class WorkloadSettings:
    """Where to listen, with which certificate, and who signs for workload nodes."""

    listen: str
    port: int
    files: ServerFiles
    issuer: Issuer
    pools: Pools = DEFAULT_POOLS


class WorkloadService:
    """Serves workload nodes their tunnels, and takes what they say of them."""

    def __init__(self, store: Store, settings: WorkloadSettings, live: Live) -> None:
        self._settings = settings
        self._streams = WorkloadStreams(store, live, settings.pools.inside6)
        self._agents = WorkloadAgents(store, live, settings.issuer, self._streams.authorize)
        self.port = settings.port

    @property
    def nodes(self) -> frozenset[str]:
        """Those that have a stream."""
        return self._streams.nodes

    async def run(self) -> None:
        """Serve until cancelled."""
        settings = self._settings
        server = grpc.aio.server(interceptors=[Admission(refuse_others)], options=_OPTIONS)
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self._streams, server)
        epic_pb2_grpc.add_WorkloadServiceServicer_to_server(self._agents, server)
        # gRPC takes [::] for both families
        host = f"[{settings.listen}]" if ":" in settings.listen else settings.listen
        self.port = server.add_secure_port(f"{host}:{settings.port}", server_credentials(settings.files))
        await server.start()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await server.stop(_STOP_SECONDS)
