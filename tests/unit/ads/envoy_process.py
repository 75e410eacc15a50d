# SPDX-License-Identifier: Apache-2.0
"""A real Envoy under test: its process, a delta-ADS server for it, and backends behind it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import yaml
from envoy.service.discovery.v3 import ads_pb2_grpc

from epic.ads.delta.connection import Refusal
from epic.ads.delta.server import DeltaServer

ENVOY = shutil.which("envoy")
NODE = "epic-root.U1"
STATS = "/stats?filter=warming_clusters"

needs_envoy = pytest.mark.skipif(ENVOY is None, reason="the pinned Envoy is not on the PATH")


class Answers:
    """A listener that keeps the newest answer of each type."""

    def __init__(self) -> None:
        self.acked: dict[str, dict[str, str]] = {}
        self.nacks: list[str] = []

    def on_ack(self, node_id: str, type_url: str, acked: dict[str, str]) -> None:
        self.acked[type_url] = acked

    def on_nack(self, node_id: str, type_url: str, message: str) -> None:
        self.nacks.append(message)

    def on_disconnect(self, node_id: str) -> None:
        pass


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def fetch(reader_writer: tuple[asyncio.StreamReader, asyncio.StreamWriter], path: str) -> str:
    reader, writer = reader_writer
    writer.write(f"GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".encode())
    reply = await reader.read()
    writer.close()
    return reply.decode()


async def get(port: int) -> str:
    """The backend's name, or the status line when Envoy answers by itself."""
    try:
        reply = await fetch(await asyncio.open_connection("127.0.0.1", port), "/")
    except OSError as error:
        return str(error)
    return reply.partition("\r\n\r\n")[2] if " 200 " in reply else reply.partition("\r\n")[0]


@asynccontextmanager
async def backend(name: str) -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Length: {len(name)}\r\nConnection: close\r\n\r\n{name}".encode()
        )
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def serving(path: Path, answers: Answers) -> AsyncIterator[DeltaServer]:
    server = grpc.aio.server()
    servicer = DeltaServer(answers, lambda node_id, _: None if node_id == NODE else Refusal("unknown"))
    ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield servicer
    finally:
        await server.stop(None)


@asynccontextmanager
async def envoy(directory: Path) -> AsyncIterator[Path]:
    """Run Envoy against the socket `xds` in the directory; yields its admin socket."""
    http2 = {"explicit_http_config": {"http2_protocol_options": {}}}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    pipe = {"endpoint": {"address": {"pipe": {"path": str(directory / "xds")}}}}
    xds = {
        "name": "xds",
        "type": "STATIC",
        "typed_extension_protocol_options": {options: {"@type": f"type.googleapis.com/{options}", **http2}},
        "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [pipe]}]},
    }
    source = {"ads": {}, "resource_api_version": "V3"}
    bootstrap = {
        "node": {"id": NODE, "cluster": "root"},
        "admin": {"address": {"pipe": {"path": str(directory / "admin")}}},
        "static_resources": {"clusters": [xds]},
        "dynamic_resources": {
            "cds_config": source,
            "lds_config": source,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
        },
    }
    config = directory / "bootstrap.yaml"
    config.write_text(yaml.safe_dump(bootstrap))
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(str(ENVOY), "-c", str(config), "--concurrency", "1", "--use-dynamic-base-id"),
            stdout=log,
            stderr=log,
            env={**os.environ, "LC_ALL": "C"},
        )
        try:
            yield directory / "admin"
        finally:
            process.kill()
            await process.wait()


async def ask(admin: Path, path: str) -> str:
    return await fetch(await asyncio.open_unix_connection(admin), path)


async def eventually(condition: Callable[[], object], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event
            await asyncio.sleep(0.01)


async def until_served(port: int, name: str) -> None:
    async with asyncio.timeout(60):
        while await get(port) != name:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
