# SPDX-License-Identifier: Apache-2.0
"""A credential that is changed or deleted is worth nothing from that moment, nor are its open streams."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Network

import httpx
import pytest
from api_requests import ADMIN, API, TENANT, Events

from epic.api.access import auth
from epic.api.access.connections import Limits
from epic.api.app import create_app
from epic.api.context import Context
from epic.cache.store import CachedStore
from epic.model.base import Metadata
from epic.model.resources import Account, User, UserSpec
from epic.model.runs import Run, RunSpec

EVENTS = f"{API}/runs/1/events"
CHIEF = ("chief", "password-of-a-chief")
"""An administrator of an account."""


class Endless(Events):
    """A run that goes on."""

    async def follow(self, run: str, *, live: bool) -> AsyncIterator[dict[str, object]]:
        yield {"event": "started", "run": run}
        await asyncio.sleep(3600)


class Stream:
    """A request for a run's events, as a server passes it to the application."""

    def __init__(self, store: CachedStore, credential: tuple[str, str]) -> None:
        context = Context(store=store, inside_pool=IPv4Network("100.64.0.0/10"), run_events=Endless())
        self.app = create_app(context)
        basic = base64.b64encode(":".join(credential).encode())
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "https",
            "path": EVENTS,
            "raw_path": EVENTS.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"authorization", b"Basic " + basic)],
            "client": ("192.0.2.9", 1),
            "server": ("epic", 443),
        }
        self.status = 0
        self.begun = asyncio.Event()
        self.ended = False

    async def _receive(self) -> dict[str, object]:
        await asyncio.sleep(3600)
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            assert isinstance(message["status"], int)
            self.status = message["status"]
        elif message.get("body"):
            self.begun.set()
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.ended = True

    @asynccontextmanager
    async def open(self) -> AsyncIterator[asyncio.Task[None]]:
        """The task that serves it, from its first event on."""
        task = asyncio.create_task(self.app(self.scope, self._receive, self._send))
        async with asyncio.timeout(60):
            await self.begun.wait()
        yield task
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture(autouse=True)
def run(store: CachedStore) -> None:
    with store.transaction() as transaction:
        transaction.create(Run(metadata=Metadata(name="1"), spec=RunSpec(nodes=("epic1",))))


def change_password(store: CachedStore, account: str, name: str) -> None:
    with store.transaction() as transaction:
        user = transaction.get(User, account, name)
        spec = user.spec.model_copy(update={"password_hash": auth.hash_password("another-password")})
        transaction.update(user.model_copy(update={"spec": spec}))


def delete_user(store: CachedStore, account: str, name: str) -> None:
    with store.transaction() as transaction:
        transaction.delete(User, account, name)


@pytest.mark.parametrize("act", [change_password, delete_user])
async def test_the_open_events_of_a_run_end(
    store: CachedStore, act: Callable[[CachedStore, str, str], None]
) -> None:
    stream = Stream(store, ADMIN)
    async with stream.open() as task:
        assert stream.status == 200
        act(store, "", ADMIN[0])
        async with asyncio.timeout(1):
            await task
    assert stream.ended, "properly, for the client is to try again and be refused"


async def test_other_users_streams_go_on(store: CachedStore) -> None:
    with store.transaction() as transaction:
        spec = UserSpec(password_hash=auth.hash_password("other-password"))
        transaction.create(User(metadata=Metadata(name=ADMIN[0], namespace="other"), spec=spec))
    stream = Stream(store, ADMIN)
    async with stream.open() as task:
        delete_user(store, "other", ADMIN[0])
        change_password(store, "root", TENANT[0])
        with store.transaction() as transaction:
            transaction.create(Account(metadata=Metadata(name="more")))
        await asyncio.sleep(0.2)
        assert not task.done()


async def test_a_user_that_is_deleted_as_the_stream_begins_gets_none_that_lasts(
    store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = auth.verify_password

    def verify_and_delete(password_hash: str, password: str) -> bool:
        good = verify(password_hash, password)
        delete_user(store, "", ADMIN[0])
        return good

    monkeypatch.setattr(auth, "verify_password", verify_and_delete)
    stream = Stream(store, ADMIN)
    async with stream.open() as task, asyncio.timeout(1):
        await task
    assert stream.status == 401


async def test_a_stream_that_the_server_gives_up_is_cancelled_as_ever(store: CachedStore) -> None:
    stream = Stream(store, ADMIN)
    async with stream.open() as task:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_nothing_is_followed_while_no_stream_is_open(store: CachedStore) -> None:
    async with Stream(store, ADMIN).open():
        assert [task for task in asyncio.all_tasks() if task.get_name() == "sessions"]
    await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "sessions"]


async def test_after_the_end_the_old_credential_is_refused(
    store: CachedStore, tenant: httpx.AsyncClient
) -> None:
    assert (await tenant.get(f"{API}/accounts/root")).status_code == 200
    change_password(store, "root", TENANT[0])
    assert (await tenant.get(f"{API}/accounts/root")).status_code == 401


async def test_an_account_has_so_many_streams_and_others_have_theirs(
    store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Limits, "streams", 2)
    with store.transaction() as transaction:
        spec = UserSpec(password_hash=auth.hash_password(CHIEF[1]), admin=True)
        transaction.create(User(metadata=Metadata(name=CHIEF[0], namespace="root"), spec=spec))
    first = Stream(store, CHIEF)
    second, late, others = (Stream(store, who) for who in (CHIEF, CHIEF, ADMIN))
    for stream in (second, late, others):
        stream.app = first.app
    async with first.open():
        async with second.open() as task:
            await late.app(late.scope, late._receive, late._send)
            assert late.status == 429
            assert late.ended
            async with others.open():
                assert others.status == 200
            task.cancel()
            await asyncio.wait({task})
        again = Stream(store, CHIEF)
        again.app = first.app
        async with again.open():
            assert again.status == 200
