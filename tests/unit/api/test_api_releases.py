# SPDX-License-Identifier: Apache-2.0
"""The public address of a gateway that is gone: its account may have it back, others wait."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from api_requests import ADMIN, API, PROXIES, proxy_body
from life_plant import Plant

from epic.cache.store import CachedStore
from epic.model.releases import ReleasedAddress
from epic.model.resources import GWProxy, LBServiceGroup, ServicePrefix

OTHERS = f"{API}/accounts/other/groups/g/proxies"
ADDRESS = "203.0.113.10"


@pytest.fixture
def client(anyone: httpx.AsyncClient, store: CachedStore) -> httpx.AsyncClient:
    """An administrator where all accounts share one address."""
    pool = {"pool": f"{ADDRESS}/32", "subnet": "203.0.113.0/24"}
    with store.transaction() as transaction:
        prefix = transaction.get(ServicePrefix, "", "default")
        spec = prefix.spec.model_validate({"public-pool": pool})
        transaction.update(prefix.model_copy(update={"spec": spec}))
        group = {"metadata": {"name": "g", "namespace": "other"}, "spec": {"service-prefix": "default"}}
        transaction.create(LBServiceGroup.model_validate(group))
    anyone.auth = httpx.BasicAuth(*ADMIN)
    return anyone


async def come_and_go(client: httpx.AsyncClient, plant: Plant, path: str = PROXIES, uid: str = "U1") -> None:
    created = await client.post(path, json=proxy_body(uid))
    assert created.json()["proxy"]["spec"]["public-address"] == ADDRESS
    plant.settle()
    await client.delete(created.headers["location"])
    plant.settle(turns=30)
    assert plant.store.list(GWProxy) == []


def asking(uid: str) -> dict[str, Any]:
    gateway = proxy_body()["proxy"]["spec"]["gateway"] | {"addresses": [{"value": ADDRESS}]}
    return proxy_body(uid, gateway=gateway)


async def test_another_account_waits_for_it_and_is_told_nothing_of_who_had_it(
    client: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    await come_and_go(client, plant)
    refused = await client.post(OTHERS, json=proxy_body("U2"))
    assert (refused.status_code, refused.json()["reason"]) == (503, "NoRoom")
    asked = await client.post(OTHERS, json=asking("U2"))
    assert (asked.status_code, "is not free" in asked.json()["error"]) == (409, True)
    plant.clock.pass_(300)
    assert (await client.post(OTHERS, json=asking("U2"))).status_code == 302
    assert store.list(ReleasedAddress) == [], "it is somebody's"
    plant.settle()


async def test_its_account_has_it_back_at_once(
    client: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    await come_and_go(client, plant)
    await come_and_go(client, plant, uid="U2")
    assert (await client.post(PROXIES, json=asking("U3"))).status_code == 302
    assert store.list(ReleasedAddress) == []


async def test_a_creation_that_fails_leaves_the_release_as_it_is(
    client: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    await come_and_go(client, plant)
    wrong = proxy_body("U2", **{"display-name": "-not a name-"})
    assert (await client.post(PROXIES, json=wrong)).status_code == 400
    assert [found.name for found in store.list(ReleasedAddress)] == [ADDRESS]
    assert (await client.post(OTHERS, json=proxy_body("U2"))).status_code == 503


async def test_an_account_of_the_same_name_is_not_the_same_account(
    client: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    await come_and_go(client, plant, OTHERS)
    assert (await client.delete(f"{API}/accounts/other")).status_code == 200
    await client.post(f"{API}/accounts", json={"account": {"metadata": {"name": "other"}}})
    group = {"group": {"metadata": {"name": "g"}, "spec": {"service-prefix": "default"}}}
    assert (await client.post(f"{API}/accounts/other/groups", json=group)).status_code == 302
    assert (await client.post(OTHERS, json=proxy_body("U2"))).status_code == 503


async def test_a_release_is_forgotten_after_a_day_also_after_a_restart(
    client: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    await come_and_go(client, plant)
    plant.restart_control()
    plant.clock.pass_(86400 - 100)
    plant.settle()
    assert len(store.list(ReleasedAddress)) == 1
    plant.clock.pass_(700)
    plant.settle()
    assert store.list(ReleasedAddress) == []
