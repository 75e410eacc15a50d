# SPDX-License-Identifier: Apache-2.0
"""Workload nodes as epic-control sees them: each follows its tunnels, and reports every ten seconds."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import grpc
import httpx
from control_process import ADMIN, API, ControlProcess
from cryptography.hazmat.primitives.serialization import Encoding
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3 import discovery_pb2 as pb

from epic.ads.snapshot import NODE_STATE, WORKLOAD_TUNNEL, WORKLOAD_TYPES
from epic.pki import certificates as certs
from epic.pki import directory as files
from epic.proto import epic_pb2, epic_pb2_grpc

REPORT_SECONDS = 10.0
_OPEN_AT_ONCE = 20
_WAIT_SECONDS = 30.0
_CLUSTER = "c"


def tls(control: ControlProcess) -> ssl.SSLContext:
    """What trusts epic-control."""
    return ssl.create_default_context(cafile=str(control.pki / "ca.crt"))


class Watcher:
    """A workload node's stream, on a connection of its own."""

    def __init__(self, control: ControlProcess, account: str, node: str) -> None:
        self.account, self.node = account, node
        self.tunnels: set[int] = set()
        self._control = control
        self._channel: grpc.aio.Channel | None = None
        self._task: asyncio.Task[None] | None = None
        self._event = asyncio.Event()
        self._applied = 0
        self.heard_at = 0.0

    async def open(self, client: httpx.AsyncClient) -> None:
        """Get a certificate and ask, and wait for all tunnels."""
        key = files.new_key()
        request = certs.agent_request(key, "workload").public_bytes(Encoding.PEM)
        reply = await client.post(
            f"{API}/accounts/{self.account}/workload-nodes/certificates?cluster={_CLUSTER}&node={self.node}",
            json={"request": request.decode()},
        )
        assert reply.status_code == 200, reply.text
        content = reply.json()
        credentials = grpc.ssl_channel_credentials(
            content["authorities"].encode(), files.key_pem(key), content["certificate"].encode()
        )
        # Else gRPC shares a connection between channels that are alike.
        options = (("grpc.use_local_subchannel_pool", 1),)
        self._channel = grpc.aio.secure_channel(f"127.0.0.1:{content['port']}", credentials, options)
        self._task = asyncio.create_task(self._listen(self._channel))
        await self.hear()

    async def _listen(self, channel: grpc.aio.Channel) -> None:
        call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).DeltaAggregatedResources()
        for type_url in WORKLOAD_TYPES:
            node = {"id": f"{self.account}/{_CLUSTER}/{self.node}"}
            await call.write(pb.DeltaDiscoveryRequest(node=node, type_url=type_url))
        while (response := await call.read()) is not grpc.aio.EOF:
            if response.type_url == WORKLOAD_TUNNEL:
                self.heard_at = time.perf_counter()
                self.tunnels |= {int(resource.name) for resource in response.resources}
                self.tunnels -= set(map(int, response.removed_resources))
            await call.write(
                pb.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
            )
            if response.type_url == NODE_STATE:
                (state,) = response.resources
                self._applied = epic_pb2.NodeState.FromString(state.resource.value).revision
                self._event.set()

    async def hear(self) -> float:
        """When the next tunnels came, or those that have come since the last call."""
        async with asyncio.timeout(_WAIT_SECONDS):
            await self._event.wait()
        self._event.clear()
        return self.heard_at

    async def close(self) -> None:
        """Go away."""
        if self._task is not None and self._channel is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            await self._channel.close()

    async def report(self) -> None:
        """Tell how the tunnels are, as agents do."""
        said = [
            epic_pb2.TunnelStatus(id=id_, epochs=[1], signing_epoch=1, rx_packets=9, hello_age=1)
            for id_ in self.tunnels
        ]
        assert self._channel is not None
        stub = epic_pb2_grpc.WorkloadServiceStub(self._channel)
        await stub.Report(iter([epic_pb2.WorkloadReport(applied=self._applied, tunnels=said)]), timeout=60)


async def open_all(control: ControlProcess, watchers: list[Watcher]) -> None:
    """Open them, some at a time."""
    url = f"https://127.0.0.1:{control.port}"
    async with httpx.AsyncClient(base_url=url, auth=ADMIN, verify=tls(control), timeout=60) as client:
        for start in range(0, len(watchers), _OPEN_AT_ONCE):
            part = watchers[start : start + _OPEN_AT_ONCE]
            await asyncio.gather(*(watcher.open(client) for watcher in part))


async def close_all(watchers: list[Watcher]) -> None:
    """End them."""
    await asyncio.gather(*(watcher.close() for watcher in watchers))


async def event_times(
    write: Callable[[int], Awaitable[httpx.Response]], touched: Callable[[int], list[Watcher]], count: int
) -> list[float]:
    """From each write until each watcher that it touches has what it changes, in seconds."""
    times = []
    for number in range(count):
        begun = time.perf_counter()
        reply = await write(number)
        assert reply.status_code == 302, reply.text
        times += [await watcher.hear() - begun for watcher in touched(number)]
    return times


async def live_idle(watchers: list[Watcher], seconds: float) -> None:
    """Let each node report every ten seconds, spread evenly, for a while."""
    end = time.monotonic() + seconds

    async def reports(number: int, watcher: Watcher) -> None:
        await asyncio.sleep(REPORT_SECONDS * number / len(watchers))
        while time.monotonic() < end:
            await asyncio.gather(watcher.report(), asyncio.sleep(REPORT_SECONDS))

    await asyncio.gather(*(reports(number, watcher) for number, watcher in enumerate(watchers)))
