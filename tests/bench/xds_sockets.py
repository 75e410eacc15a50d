# SPDX-License-Identifier: Apache-2.0
"""What an xDS socket for each gateway costs against one that all share, each with a stream of every Envoy.

Each way runs in a process of its own; figures are of that process. `xds_sockets.py [GATEWAYS]`
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3 import discovery_pb2 as pb

from epic.ads.delta.server import DeltaServer
from epic.ads.snapshot import CLUSTER, versioned
from epic.agent.gateway.envoy.registry import EnvoyRegistry
from epic.agent.gateway.envoy.xds import XdsSockets

GATEWAYS = 250
SNAPSHOT = {CLUSTER: {"c": versioned(Cluster(name="c"))}}
_IDLE_SECONDS = 20.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


class _Deaf:
    def on_ack(self, node_id: str, type_url: str, acked: dict[str, str]) -> None: ...

    def on_nack(self, node_id: str, type_url: str, message: str) -> None: ...

    def on_disconnect(self, node_id: str) -> None: ...


def names(count: int) -> list[str]:
    """Gateways."""
    return [f"shop.web{number}" for number in range(count)]


async def serve_each(directory: Path, count: int) -> None:
    """As the agent does."""
    registry = EnvoyRegistry(lambda: None)
    sockets = XdsSockets(registry, directory, directory)
    registry.keep(names(count))
    sockets.keep(names(count))
    await sockets.sync()
    for gateway in names(count):
        sockets.publish(gateway, SNAPSHOT)
    await measure(sockets.run())


async def serve_shared(directory: Path, count: int) -> None:
    """One socket and server for all."""
    server = DeltaServer(_Deaf(), lambda *_: None)
    listener = grpc.aio.server()
    ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(server, listener)
    listener.add_insecure_port(f"unix:{directory}/shared.sock")
    await listener.start()
    for gateway in names(count):
        server.publish(f"epic-{gateway}", SNAPSHOT)
    await measure(asyncio.sleep(1e6))


def process_figures() -> dict[str, float]:
    """Memory and open files of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {"memory_mib": pages * _PAGE / 2**20, "files": len(list(Path("/proc/self/fd").iterdir()))}


async def measure(background: object) -> None:
    """Tell when it serves; when the streams are there, measure and tell the figures."""
    assert asyncio.iscoroutine(background)
    task = asyncio.create_task(background)
    figures = {"start_cpu_ms": time.process_time() * 1000 - BEGUN}
    print("serving", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    figures |= process_figures()
    used = time.process_time()
    await asyncio.sleep(_IDLE_SECONDS)
    figures["idle_cpu_percent"] = (time.process_time() - used) / _IDLE_SECONDS * 100
    print(json.dumps(figures), flush=True)
    task.cancel()


async def run(way: str, count: int) -> dict[str, float]:
    """The figures of a way."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, __file__, way, str(count), directory]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None and process.stdout is not None
        assert await process.stdout.readline() == b"serving\n"
        async with AsyncExitStack() as stack:
            for gateway in names(count):
                path = f"{directory}/shared.sock" if way == "shared" else f"{directory}/{gateway}/xds.sock"
                # Else gRPC takes one connection for all that go to one address.
                options = [("grpc.use_local_subchannel_pool", 1)]
                channel = grpc.aio.insecure_channel(f"unix:{path}", options=options)
                await stack.enter_async_context(channel)
                call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).DeltaAggregatedResources()
                request = pb.DeltaDiscoveryRequest(type_url=CLUSTER)
                request.node.id = f"epic-{gateway}"
                await call.write(request)
                await call.read()
            process.stdin.write(b"\n")
            figures: dict[str, float] = json.loads(await process.stdout.readline())
        process.kill()
        await process.wait()
        return figures


async def main(count: int) -> None:
    each, shared = await run("each", count), await run("shared", count)
    print(f"{count} gateways, a stream each      a socket each   one for all   ratio")
    for name, value in each.items():
        print(f"{name:34} {value:12.2f} {shared[name]:13.2f} {value / shared[name]:7.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 3:
        BEGUN = time.process_time() * 1000
        served = {"each": serve_each, "shared": serve_shared}[sys.argv[1]]
        asyncio.run(served(Path(sys.argv[3]), int(sys.argv[2])))
    else:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else GATEWAYS))
