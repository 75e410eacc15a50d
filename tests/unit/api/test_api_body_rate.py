# SPDX-License-Identifier: Apache-2.0
"""How fast an account may send: it takes no time from others."""

from __future__ import annotations

from contextlib import nullcontext

import httpx
import pytest
from api_requests import ADMIN, API, PROXIES, proxy_body
from starlette.datastructures import Headers
from starlette.types import Message

from epic.api.access import body_rate
from epic.api.access.body_limit import MOST_BYTES, body_length
from epic.api.access.body_rate import LEAST_BYTES, BodyRate, TooManyBytes
from epic.cache.store import CachedStore
from epic.model.resources import Account

MIB = 1 << 20


class Clock:
    """Time that passes only while something sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(body_rate, "time", clock)
    monkeypatch.setattr(body_rate, "asyncio", clock)
    return clock


async def test_an_account_may_send_much_at_once_and_then_waits_while_others_do_not(
    clock: Clock, store: CachedStore
) -> None:
    rate = BodyRate(store)
    for _ in range(16 * MIB // MOST_BYTES):
        await rate.take("greedy", MOST_BYTES)
    assert clock.now == 100.0
    await rate.take("greedy", MOST_BYTES)
    await rate.take("modest", MOST_BYTES)
    assert clock.now == 100.0
    await rate.take("greedy", 1)
    assert clock.now == pytest.approx(100.0 + MOST_BYTES / MIB)


async def test_who_would_wait_long_is_told_when_to_come_again(clock: Clock, store: CachedStore) -> None:
    rate = BodyRate(store)
    await rate.take("greedy", 76 * MIB)
    with pytest.raises(TooManyBytes) as refusal:
        await rate.take("greedy", 1)
    assert refusal.value.seconds == 60
    clock.now += 60
    await rate.take("greedy", 1)
    assert clock.now == 160


@pytest.mark.parametrize(("limit", "seconds"), [(1 << 10, 60), (64 * MIB, 60), (4 * 76 * MIB, 0)])
async def test_who_may_have_more_may_send_more_and_who_may_have_less_no_less_than_others(
    clock: Clock, store: CachedStore, limit: int, seconds: int
) -> None:
    with store.transaction() as transaction:
        account = transaction.get(Account, "", "root")
        spec = account.spec.model_copy(update={"bytes_limit": limit, "workload_node_limit": 10_000})
        transaction.update(account.model_copy(update={"spec": spec}))
    rate = BodyRate(store)
    await rate.take("root", 76 * MIB)
    with pytest.raises(TooManyBytes) if seconds else nullcontext() as refusal:
        await rate.take("root", 1)
    assert clock.now == 100
    assert refusal is None or refusal.value.seconds == seconds


async def test_a_request_without_a_body_counts_too(clock: Clock, store: CachedStore) -> None:
    rate = BodyRate(store)
    for _ in range(16 * MIB // LEAST_BYTES + 1):
        await rate.take("greedy", 0)
    assert clock.now == 100.0
    await rate.take("greedy", 0)
    assert clock.now == pytest.approx(100.0 + LEAST_BYTES / MIB)


async def test_a_reply_counts_for_a_quarter(clock: Clock, store: CachedStore) -> None:
    rate, sent = BodyRate(store), []

    async def send(message: Message) -> None:
        sent.append(message)

    sending = rate.counting("greedy", send)
    messages = [{"type": "http.response.start", "status": 200, "headers": []}]
    messages += [{"type": "http.response.body", "body": b"x" * MIB, "more_body": n < 63} for n in range(64)]
    for message in messages:
        await sending(message)
    assert sent == messages
    await rate.take("greedy", 4 * MIB)
    await rate.take("greedy", 0)
    assert clock.now == pytest.approx(104.0)


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        ({}, 0),
        ({"content-length": "12"}, 12),
        ({"content-length": "9" * 20}, MOST_BYTES),
        ({"content-length": "some"}, 0),
        ({"transfer-encoding": "chunked"}, MOST_BYTES),
    ],
)
def test_a_body_counts_for_what_it_may_have(headers: dict[str, str], length: int) -> None:
    assert body_length(Headers(headers)) == length


async def test_a_tenant_that_sends_too_fast_is_answered_429_and_an_administrator_never(
    tenant: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_rate, "_AT_ONCE", 0)
    monkeypatch.setattr(body_rate, "_A_SECOND", 1 / (64 * MIB))
    monkeypatch.setattr(body_rate, "_LONGEST_SECONDS", 0.0)
    assert (await tenant.post(PROXIES, json=proxy_body())).status_code == 302
    refused = await tenant.put(f"{API}/accounts/root/proxies/U1", json=proxy_body())
    assert refused.status_code == 429
    assert refused.json()["reason"] == "TooManyRequests"
    assert int(refused.headers["retry-after"]) >= 1
    assert (await tenant.get(f"{API}/accounts/root")).status_code == 429
    for _ in range(3):
        assert (
            await tenant.put(f"{API}/accounts/root/proxies/U1", json=proxy_body(), auth=ADMIN)
        ).status_code == 302
