# SPDX-License-Identifier: Apache-2.0
"""A client that opens connections and asks nothing, or slowly, is alone with that."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Network
from pathlib import Path

import httpx
import pytest
from ads_site import Held, Site, eventually

from epic.ads.snapshot import NODE_STATE
from epic.api.access.auth import hash_password
from epic.api.app import create_app
from epic.api.context import Context
from epic.api.replies import PREFIX
from epic.control.rest_server import RestServer
from epic.control.settings import RestSettings
from epic.model.base import Metadata
from epic.model.resources import Account, User, UserSpec
from epic.model.runs import Run, RunSpec
from epic.runs.events import EventHub

PASSWORD = "secret-of-a-tenant"
FLOODING = ("127.0.0.2", 0)
EACH = 334


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    spec = UserSpec(password_hash=hash_password(PASSWORD))
    for account in ("greedy", "modest"):
        site.put(Account(metadata=Metadata(name=account)))
        site.put(User(metadata=Metadata(name=account, namespace=account), spec=spec))
    chief = spec.model_copy(update={"admin": True})
    site.put(User(metadata=Metadata(name="chief", namespace="modest"), spec=chief))
    site.put(Run(metadata=Metadata(name="1"), spec=RunSpec(nodes=("epic1",))))
    return site


class Rest:
    """The REST API of the same process, with an eighth of the connections that it may have by default."""

    def __init__(self, site: Site) -> None:
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port = self._sock.getsockname()[1]
        self.trust = ssl.create_default_context(cafile=site.directory / "epic1" / "ca.crt")
        settings = RestSettings(
            certificate=site.settings.certificate, key=site.settings.key, connections=1024
        )
        self.limits = settings.limits()
        pool = IPv4Network("100.64.0.0/10")
        self.events = EventHub()
        self._context = Context(
            store=site.store, inside_pool=pool, run_events=self.events, limits=self.limits
        )
        self.server = RestServer(create_app(self._context), settings)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        serving = asyncio.create_task(self.server.serve([self._sock]))
        await self.server.listening.wait()
        yield
        self._context.closing.set()
        self.server.should_exit = True
        await serving

    def client(self, user: str) -> httpx.AsyncClient:
        url = f"https://127.0.0.1:{self.port}"
        return httpx.AsyncClient(base_url=url, auth=(user, PASSWORD), verify=self.trust)

    async def connect(self, *, tls: bool = True) -> asyncio.StreamWriter:
        """As the client that floods."""
        _, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.trust if tls else None, local_addr=FLOODING
        )
        return writer


@asynccontextmanager
async def flood(rest: Rest, count: int) -> AsyncIterator[None]:
    """Open so many connections of each kind, and keep them as long as the server lets."""
    kept: list[asyncio.StreamWriter] = []
    basic = base64.b64encode(f"greedy:{PASSWORD}".encode()).decode()
    head = f"POST {PREFIX}/accounts/greedy/proxies HTTP/1.1\r\nHost: epic\r\n"
    slow = f"{head}Authorization: Basic {basic}\r\nContent-Length: 9000\r\n\r\n"

    async def open_one(sent: str | None) -> None:
        with suppress(OSError):
            writer = await rest.connect(tls=sent is not None)
            kept.append(writer)
            writer.write((sent or "").encode())

    for _ in range(count):
        await asyncio.gather(*(open_one(sent) for sent in (None, head, slow)))
    yield
    for writer in kept:
        writer.close()


async def test_others_and_nodes_are_answered_while_a_client_floods_the_api(site: Site) -> None:
    rest = Rest(site)
    held = Held()
    async with site.serving(), rest.serving(), rest.client("chief") as chief:
        await rest.events.publish("1", {"event": "started"})
        async with chief.stream("GET", f"{PREFIX}/runs/1/events", timeout=30) as watch:
            news = watch.aiter_raw()
            assert (await anext(news)).startswith(b"event: started")
            async with flood(rest, EACH), rest.client("modest") as other:
                assert len(rest.server.connections) <= rest.limits.unknown + rest.limits.account + 1
                assert (await other.get(f"{PREFIX}/healthz")).status_code == 200
                assert (await other.get(f"{PREFIX}/accounts/modest")).status_code == 200
                async with site.agent(held):
                    await eventually(lambda: held.names(NODE_STATE))
                assert (await anext(news)).startswith(b": still here")
