# SPDX-License-Identifier: Apache-2.0
"""Wrong passwords cost who sends them: everybody else's requests are answered, and guesses are bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network

import httpx
import pytest
from api_requests import ADMIN, API, TENANT, Events

from epic.api.access import auth
from epic.api.access.attempts import Attempts, SourceTurns, TooManyAttempts
from epic.api.app import create_app
from epic.api.context import Context
from epic.cache.store import CachedStore
from epic.model.base import Metadata
from epic.model.resources import User, UserSpec

OWN = f"{API}/accounts/root"


class Site:
    """One application, asked from different addresses."""

    def __init__(self, store: CachedStore) -> None:
        self.app = create_app(
            Context(store=store, inside_pool=IPv4Network("100.64.0.0/10"), run_events=Events())
        )

    async def get(self, who: tuple[str, str], path: str = OWN, source: str = "192.0.2.1") -> httpx.Response:
        transport = httpx.ASGITransport(self.app, client=(source, 1))
        async with httpx.AsyncClient(transport=transport, base_url="https://epic") as client:
            return await client.get(path, auth=who)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it, with a limit."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.fixture
def site(store: CachedStore) -> Site:
    return Site(store)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The passwords that were compared with a hash, in order."""
    passwords: list[str] = []
    verify = auth.verify_password

    def noting(password_hash: str, password: str) -> bool:
        passwords.append(password)
        return verify(password_hash, password)

    monkeypatch.setattr(auth, "verify_password", noting)
    yield passwords


async def test_wrong_passwords_of_a_source_are_refused_after_a_few(site: Site, hashed: list[str]) -> None:
    replies = await asyncio.gather(*(site.get((ADMIN[0], f"wrong{i}")) for i in range(100)))
    counts = {status: [r.status_code for r in replies].count(status) for status in (401, 429)}
    assert counts == {401: 20, 429: 80}
    assert len(hashed) == 20
    late = next(r for r in replies if r.status_code == 429)
    assert 1 <= int(late.headers["retry-after"]) <= 5
    assert "too many wrong passwords" in late.json()["error"]


async def test_nobody_is_locked_out_from_elsewhere(site: Site, hashed: list[str]) -> None:
    for source in range(8):
        await asyncio.gather(
            *(site.get((ADMIN[0], f"{source}-{i}"), source=f"198.51.100.{source}") for i in range(40))
        )
    assert (await site.get(ADMIN, source="192.0.2.9")).status_code == 200
    # Sources that guess together have fewer guesses of one user than alone.
    assert len(hashed) < 8 * 20


async def test_a_verified_credential_goes_on_where_others_guess(site: Site) -> None:
    assert (await site.get(TENANT)).status_code == 200
    await asyncio.gather(*(site.get((TENANT[0], f"wrong{i}")) for i in range(40)))
    assert (await site.get((TENANT[0], "another"))).status_code == 429
    assert (await site.get(TENANT)).status_code == 200


async def test_a_right_password_is_next_however_many_wrong_ones_wait(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    go = threading.Event()

    def slow(_: str, password: str) -> bool:
        go.wait(20)
        order.append(password)
        return password == TENANT[1]

    monkeypatch.setattr(auth, "verify_password", slow)
    waiting: list[str] = []
    wait = SourceTurns._wait

    async def noting(turns: SourceTurns, source: str) -> None:
        waiting.append(source)
        await wait(turns, source)

    monkeypatch.setattr(SourceTurns, "_wait", noting)
    guesses = [asyncio.create_task(site.get((ADMIN[0], f"wrong{i}"))) for i in range(20)]
    await until(lambda: len(waiting) == 20)
    right = asyncio.create_task(site.get(TENANT, source="192.0.2.9"))
    await until(lambda: "192.0.2.9" in waiting)
    go.set()
    assert (await right).status_code == 200
    assert order.index(TENANT[1]) <= 5
    await asyncio.gather(*guesses)


async def test_paths_of_other_accounts_cost_no_hash(site: Site, hashed: list[str]) -> None:
    assert (await site.get(TENANT)).status_code == 200
    for i in range(50):
        assert (await site.get(TENANT, f"{API}/accounts/a{i}")).status_code == 403
    assert len(hashed) == 1


async def test_a_namesake_is_asked_once(site: Site, store: CachedStore, hashed: list[str]) -> None:
    with store.transaction() as transaction:
        spec = UserSpec(password_hash=auth.hash_password("other-password"))
        transaction.create(User(metadata=Metadata(name=TENANT[0], namespace="other"), spec=spec))
    for _ in range(5):
        assert (await site.get(TENANT, f"{API}/accounts/other")).status_code == 403
        assert (await site.get(TENANT)).status_code == 200
    assert len(hashed) == 2


async def test_users_of_one_name_and_password_are_each_in_their_account(
    site: Site, store: CachedStore
) -> None:
    with store.transaction() as transaction:
        spec = UserSpec(password_hash=auth.hash_password(TENANT[1]))
        transaction.create(User(metadata=Metadata(name=TENANT[0], namespace="other"), spec=spec))
    for _ in range(2):
        assert (await site.get(TENANT)).status_code == 200
        assert (await site.get(TENANT, f"{API}/accounts/other")).status_code == 200


async def test_one_credential_of_many_nodes_is_hashed_once(site: Site, hashed: list[str]) -> None:
    sources = [f"198.51.100.{i}" for i in range(100)]
    replies = await asyncio.gather(*(site.get(TENANT, source=source) for source in sources))
    assert {reply.status_code for reply in replies} == {200}
    assert len(hashed) == 1


async def test_a_node_that_repeats_its_wrong_password_costs_one_hash(site: Site, hashed: list[str]) -> None:
    for _ in range(30):
        assert (await site.get((TENANT[0], "mistyped"))).status_code == 401
    assert (await site.get(TENANT)).status_code == 200
    assert hashed == ["mistyped", TENANT[1]]


async def test_names_that_do_not_exist_are_refused_in_the_same_way(site: Site, hashed: list[str]) -> None:
    replies = [await site.get((f"nobody{i}", "wrong")) for i in range(22)]
    assert [r.status_code for r in replies[18:]] == [401, 401, 429, 429]
    assert len(hashed) == 20


async def test_who_goes_away_leaves_the_others_their_answer(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    monkeypatch.setattr(auth, "verify_password", lambda *_: go.wait(5))
    first = asyncio.create_task(site.get(TENANT))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(site.get(TENANT))
    await asyncio.sleep(0.05)
    first.cancel()
    go.set()
    assert (await second).status_code == 200


def test_attempts_come_back_with_time() -> None:
    now = 0.0
    attempts = Attempts(lambda: now)
    for _ in range(20):
        attempts.begin("192.0.2.1", "admin")
    with pytest.raises(TooManyAttempts) as refused:
        attempts.begin("192.0.2.1", "admin")
    now = float(refused.value.seconds)
    attempts.begin("192.0.2.1", "admin")
    with pytest.raises(TooManyAttempts):
        attempts.begin("192.0.2.1", "admin")


def test_right_passwords_cost_no_attempt() -> None:
    attempts = Attempts(lambda: 0.0)
    for _ in range(100):
        attempts.begin("192.0.2.1", "admin")
        attempts.forgive("192.0.2.1", "admin")


async def test_sources_take_turns() -> None:
    turns = SourceTurns(1)
    order: list[str] = []

    async def take(source: str) -> None:
        async with turns.turn(source):
            order.append(source)
            await asyncio.sleep(0)

    await asyncio.gather(*(take(source) for source in "aaaabbc"))
    assert "".join(order) == "aabcaba"


async def test_a_turn_that_is_not_waited_for_any_more_is_given_to_the_next() -> None:
    turns = SourceTurns(1)
    async with asyncio.timeout(60):
        async with turns.turn("a"):
            waiting = [asyncio.create_task(turns.turn("b").__aenter__()) for _ in range(2)]
            await asyncio.sleep(0)
            waiting[0].cancel()
        await waiting[1]
        # It was given its turn, and is gone before it knows.
        third = asyncio.create_task(turns.turn("c").__aenter__())
        await asyncio.sleep(0)
        turns._next()
        third.cancel()
        await asyncio.wait([third])
        async with turns.turn("d"):
            pass
