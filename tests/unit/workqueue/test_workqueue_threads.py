# SPDX-License-Identifier: Apache-2.0
"""A disk that hangs keeps those waiting who write to it or read a key from it, and nobody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from stores import open_store

from epic.ads.agents import AgentService, Service
from epic.ads.statuses import Statuses
from epic.api.access.auth import Authenticator, Credentials, hash_password
from epic.model.base import Metadata
from epic.model.resources import User, UserSpec
from epic.model.values.naming import GatewayId
from epic.proto import epic_pb2
from epic.store.interface import Store

# More than any executor has threads.
_WRITES = 100
_SECONDS = 60.0


class HangingStore:
    """Answers when it goes on."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()

    def find_readable(self, *_: object) -> None:
        self.goes_on.wait()


@asynccontextmanager
async def hanging_statuses() -> AsyncIterator[None]:
    """As many wait to write what they were told as there may be."""
    store = HangingStore()
    statuses = Statuses(cast("Store", store))
    writes = [asyncio.create_task(statuses.silent([GatewayId("a", "g")], "e1")) for _ in range(_WRITES)]
    await asyncio.sleep(0)
    try:
        yield
    finally:
        store.goes_on.set()
        await asyncio.gather(*writes)


class HangingIssuer:
    """Reads the authority's key when it goes on."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()

    def renew(self, *_: object) -> epic_pb2.RenewCertificateReply:
        self.goes_on.wait()
        return epic_pb2.RenewCertificateReply()


@asynccontextmanager
async def hanging_renewals() -> AsyncIterator[None]:
    """As many nodes wait for their certificates as there may be."""
    issuer = HangingIssuer()
    agents = AgentService(cast("Service", SimpleNamespace(authorize=lambda *_: None, issuer=issuer)))
    context = cast("Any", SimpleNamespace(auth_context=dict))
    request = epic_pb2.RenewCertificateRequest()
    renewals = [asyncio.create_task(agents.RenewCertificate(request, context)) for _ in range(_WRITES)]
    await asyncio.sleep(0)
    try:
        yield
    finally:
        issuer.goes_on.set()
        await asyncio.gather(*renewals)


async def password(directory: Path) -> None:
    with closing(open_store(directory / "epic.db")) as store:
        with store.transaction() as transaction:
            spec = UserSpec(password_hash=hash_password("secret"), admin=True)
            transaction.create(User(metadata=Metadata(name="u"), spec=spec))
        user = await Authenticator(store).authenticate(Credentials("u", "secret", "192.0.2.1"), None)
    assert user is not None


async def anything(_: Path) -> None:
    assert await asyncio.to_thread(lambda: 7) == 7


@pytest.mark.parametrize("hanging", [hanging_statuses, hanging_renewals])
@pytest.mark.parametrize("others", [password, anything])
async def test_who_does_something_else_does_not_wait_for_what_hangs(
    hanging: Callable[[], AbstractAsyncContextManager[None]],
    others: Callable[[Path], Awaitable[None]],
    tmp_path: Path,
) -> None:
    async with hanging():
        async with asyncio.timeout(_SECONDS):
            await others(tmp_path)
