# SPDX-License-Identifier: Apache-2.0
"""The real application on a real store, asked in process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Network
from pathlib import Path

import httpx
import pytest
from api_requests import ADMIN, TENANT, Events
from argon2 import PasswordHasher
from life_plant import Clock, Plant, use_clock
from service_requests import SERVICES, service_body
from stores import open_store

from epic.api.access import auth
from epic.api.app import create_app
from epic.api.context import Context
from epic.cache.store import CachedStore
from epic.live import Live
from epic.model.base import Metadata
from epic.model.resources import Account, LBServiceGroup, Node, ServicePrefix, User, UserSpec


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CachedStore]:
    store = open_store(tmp_path / "epic.db")
    with store.transaction() as transaction:
        for name in ("root", "other"):
            transaction.create(Account(metadata=Metadata(name=name)))
        pool = {"pool": "203.0.113.10-203.0.113.13", "subnet": "203.0.113.0/24"}
        transaction.create(
            ServicePrefix.model_validate({"metadata": {"name": "default"}, "spec": {"public-pool": pool}})
        )
        transaction.create(
            LBServiceGroup.model_validate(
                {
                    "metadata": {"name": "gatewayhttp", "namespace": "root"},
                    "spec": {"service-prefix": "default"},
                }
            )
        )
        for i in (1, 2):
            transaction.create(
                Node.model_validate({"metadata": {"name": f"epic{i}"}, "spec": {"address": f"192.0.2.{i}"}})
            )
        for account, (name, password) in {"": ADMIN, "root": TENANT}.items():
            spec = UserSpec(password_hash=auth.hash_password(password), admin=not account)
            transaction.create(User(metadata=Metadata(name=name, namespace=account), spec=spec))
    yield store
    store.close()


@pytest.fixture
def plant(store: CachedStore, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """What the control plane does besides the API, and nodes that do what they are told."""
    clock = Clock()
    use_clock(monkeypatch, clock)
    return Plant(store, clock, IPv4Network("100.64.0.0/10"))


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def live() -> Live:
    return Live()


@pytest.fixture
async def anyone(store: CachedStore, events: Events, live: Live) -> AsyncIterator[httpx.AsyncClient]:
    context = Context(store=store, inside_pool=IPv4Network("100.64.0.0/10"), run_events=events, live=live)
    transport = httpx.ASGITransport(create_app(context), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="https://epic") as client:
        yield client


@pytest.fixture
async def admin(anyone: httpx.AsyncClient) -> httpx.AsyncClient:
    anyone.auth = httpx.BasicAuth(*ADMIN)
    return anyone


@pytest.fixture
async def tenant(anyone: httpx.AsyncClient) -> httpx.AsyncClient:
    anyone.auth = httpx.BasicAuth(*TENANT)
    return anyone


@pytest.fixture
def shareable(store: CachedStore) -> None:
    with store.transaction() as transaction:
        group = transaction.get(LBServiceGroup, "root", "gatewayhttp")
        spec = group.spec.model_copy(update={"can_be_shared": True})
        transaction.update(group.model_copy(update={"spec": spec}))


@pytest.fixture
async def service(tenant: httpx.AsyncClient, shareable: None) -> str:
    """The path of a Service that cluster c1 serves."""
    reply = await tenant.post(SERVICES, json=service_body(**{"upstream-clusters": ["c1"]}))
    assert reply.status_code == 302, reply.text
    return str(reply.headers["location"])
