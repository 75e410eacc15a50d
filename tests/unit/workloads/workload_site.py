# SPDX-License-Identifier: Apache-2.0
"""A store with two accounts, the service of workload nodes on it, and nodes that enrol and connect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import grpc
import httpx
from argon2 import PasswordHasher
from stores import open_store

from epic.ads.delta.client import DeltaClient, mtls_channel
from epic.ads.identity.credentials import ServerFiles
from epic.ads.identity.issuer import Issuer
from epic.ads.snapshot import NODE_STATE, WORKLOAD_TUNNEL, WORKLOAD_TYPES, Resources, Versioned
from epic.api.app import create_app
from epic.api.context import Context
from epic.api.replies import PREFIX
from epic.live import Live
from epic.model.base import Metadata
from epic.model.resources import Account, GWEndpointSlice, GWRoute, Node, Tunnel, User, UserSpec
from epic.pki import operations
from epic.pki.operations import Pki
from epic.proto import epic_pb2
from epic.runs.events import EventHub
from epic.workloads.identity import Enrolment
from epic.workloads.service import WorkloadService, WorkloadSettings

HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "password-of-an-account"
ACCOUNTS = ("shop", "bank")


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event
            await asyncio.sleep(0.01)


def tunnel(account: str, number: int, node: str = "n1", proxy: str = "g1", epic_node: str = "e1") -> Tunnel:
    now = datetime.now(UTC).replace(microsecond=0).isoformat()
    return Tunnel.model_validate(
        {
            "metadata": {"name": str(number), "namespace": account},
            "spec": {
                "proxy": proxy,
                "service": 3,
                "epic-node": epic_node,
                "inside-address": f"100.64.0.{number}",
                "cluster-id": "c",
                "node-name": node,
                "node-address": "192.168.1.1",
                "keys": [{"epoch": 1, "secret": f"{number:032x}"}],
                "signing-epoch": 1,
                "signing-since": now,
            },
        }
    )


def route(account: str, name: str = "r1", proxy: str = "g1", uid: str = "s1") -> GWRoute:
    rule = {"backendRefs": [{"kind": "Service", "name": uid, "port": 80}]}
    http = {"parentRefs": [{"name": proxy}], "rules": [rule]}
    return GWRoute.model_validate({"metadata": {"name": name, "namespace": account}, "spec": {"http": http}})


def piece(account: str, *addresses: str, node: str = "n1", uid: str = "s1") -> GWEndpointSlice:
    spec = {
        "clientRef": {"clusterID": "c", "uid": uid},
        "parentRef": {"clusterID": "c", "uid": uid},
        "endpoints": [{"addresses": [a], "nodeName": node, "conditions": {"ready": True}} for a in addresses],
        "nodeAddresses": {node: "192.168.1.1"},
    }
    return GWEndpointSlice.model_validate({"metadata": {"name": uid, "namespace": account}, "spec": spec})


class Held:
    """An agent that takes everything and notes what came."""

    def __init__(self) -> None:
        self.resources: dict[str, dict[str, Versioned]] = {t: {} for t in WORKLOAD_TYPES}
        self.log: list[tuple[str, list[str], list[str]]] = []

    async def apply(self, type_url: str, updated: Resources, removed: Sequence[str]) -> str | None:
        self.log.append((type_url, sorted(updated), list(removed)))
        self.resources[type_url].update(updated)
        for name in removed:
            self.resources[type_url].pop(name, None)
        return None

    def versions(self, type_url: str) -> dict[str, str]:
        return {name: resource.version for name, resource in self.resources[type_url].items()}

    @property
    def tunnels(self) -> dict[str, epic_pb2.WorkloadTunnel]:
        found = self.resources[WORKLOAD_TUNNEL].items()
        return {name: epic_pb2.WorkloadTunnel.FromString(resource.value) for name, resource in found}

    @property
    def revision(self) -> int:
        """Of what it has; -1 when that is not known to be everything."""
        state = self.resources[NODE_STATE].get("node")
        return int(epic_pb2.NodeState.FromString(state.value).revision) if state else -1


class Site:
    def __init__(self, directory: Path, life: timedelta = timedelta(hours=24)) -> None:
        self.directory = directory
        control = directory / "control"
        control.mkdir()
        operations.control(
            Pki(control, datetime.now(UTC).replace(microsecond=0)), ["127.0.0.1"], None, timedelta(days=30)
        )
        self.control = control
        self.store = open_store(directory / "epic.db")
        self.live = Live()
        self.issuer = Issuer(control / "agents.crt", control / "agents.key", control / "ca.crt", life)
        files = ServerFiles(control / "server.crt", control / "server.key", control / "agents.crt")
        settings = WorkloadSettings("127.0.0.1", 0, files, self.issuer)
        self.service = WorkloadService(self.store, settings, self.live)
        self.put(Node.model_validate({"metadata": {"name": "e1"}, "spec": {"address": "192.0.2.1"}}))
        for account in ACCOUNTS:
            self.put(Account(metadata=Metadata(name=account)), self.user(account))
        self.put(self.user("", "admin", admin=True))

    @staticmethod
    def user(account: str, name: str = "", *, password: str = PASSWORD, admin: bool = False) -> User:
        spec = UserSpec(password_hash=HASHER.hash(password), admin=admin)
        return User(metadata=Metadata(name=name or account, namespace=account), spec=spec)

    def put(self, *objects: object) -> None:
        with self.store.transaction() as transaction:
            for obj in objects:
                transaction.create(obj)  # type: ignore[type-var]

    @contextmanager
    def change(self) -> Iterator[Any]:
        with self.store.transaction() as transaction:
            yield transaction

    async def ask(
        self, account: str, node: str, request: str, user: str = "", cluster: str = "c", of: str = ""
    ) -> httpx.Response:
        """What the REST API answers a node that asks for a certificate."""
        context = Context(
            store=self.store,
            inside_pool=IPv4Network("100.64.0.0/10"),
            run_events=EventHub(),
            live=self.live,
            enrolment=Enrolment(self.issuer, self.service.port),
        )
        transport = httpx.ASGITransport(app=create_app(context))
        path = f"{PREFIX}/accounts/{of or account}/workload-nodes/certificates"
        query = urlencode({"cluster": cluster, "node": node})
        async with httpx.AsyncClient(
            transport=transport, base_url="https://epic", auth=(user or account, PASSWORD)
        ) as client:
            return await client.post(f"{path}?{query}", json={"request": request})

    async def enrol(self, account: str, node: str = "n1", user: str = "") -> Path:
        """A node's directory with its key and certificate, as its agent makes it."""
        path = self.directory / f"{account}-{node}"
        path.mkdir(exist_ok=True)
        pki = Pki(path, datetime.now(UTC).replace(microsecond=0))
        request = operations.request(pki, "workload", renew=True)["request"]
        reply = await self.ask(account, node, request, user)
        assert reply.status_code == 200, reply.text
        content = reply.json()
        assert content["port"] == self.service.port
        (path / "ca.crt").write_text(content["authorities"])
        (path / "agents.crt").write_text(content["issuer"])
        operations.install(pki, content["certificate"].encode())
        return path

    def channel(self, path: Path) -> grpc.aio.Channel:
        return mtls_channel(f"127.0.0.1:{self.service.port}", path / "ca.crt", path / "agent.pem")

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with running(asyncio.create_task(self.service.run())):
            await eventually(lambda: self.service.port)
            yield

    @asynccontextmanager
    async def agent(self, path: Path, held: Held, name: str = "shop/c/n1") -> AsyncIterator[DeltaClient]:
        client = DeltaClient(lambda: self.channel(path), name, WORKLOAD_TYPES, held)
        async with running(asyncio.create_task(client.run())):
            yield client


@asynccontextmanager
async def running(work: asyncio.Task[None]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
