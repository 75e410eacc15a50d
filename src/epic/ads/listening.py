# SPDX-License-Identifier: Apache-2.0
"""The server that agents connect to, with mutual TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc

from epic.ads.agents import AgentService
from epic.ads.delta.server import DeltaServer
from epic.ads.identity.admission import Admission
from epic.ads.identity.authorization import refuse_nameless
from epic.ads.identity.credentials import ServerFiles, server_credentials
from epic.proto import epic_pb2_grpc

_OPTIONS = (
    # Else connections that say nothing are kept for two minutes.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # A node that vanished without a word, or reads nothing, is noticed within the sum of the two times.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 15_000),
    # A stream, a report and a renewal; a connection has no more calls under way than that needs.
    ("grpc.max_concurrent_streams", 16),
    # A node that comes back names all that it has: up to 262,144 endpoints, by gateway and address.
    ("grpc.max_receive_message_length", 64 << 20),
)


@asynccontextmanager
async def listening(
    streams: DeltaServer, agents: AgentService, files: ServerFiles, listen: str, port: int
) -> AsyncIterator[int]:
    """Serve both to agents on this address; yields the port. Of who is no EPIC node nothing is read."""
    server = grpc.aio.server(interceptors=[Admission(refuse_nameless)], options=_OPTIONS)
    ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(streams, server)
    epic_pb2_grpc.add_AgentServiceServicer_to_server(agents, server)
    # gRPC takes [::] for both families
    host = f"[{listen}]" if ":" in listen else listen
    bound = server.add_secure_port(f"{host}:{port}", server_credentials(files))
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(0.2)
