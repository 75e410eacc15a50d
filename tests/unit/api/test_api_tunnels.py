# SPDX-License-Identifier: Apache-2.0
"""How tunnels are, over REST: what ends said, and who may see it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from api_requests import ADMIN, API, PROXIES, TENANT, proxy_body, route_body, slice_body
from node_tunnels import tunnels_of

from epic.api.tunnel.rotating import advance
from epic.cache.store import CachedStore
from epic.control.rotate import Rotator
from epic.live import End, Live, Place, RoundTrip, SecondChance, epic_place, workload_place
from epic.model.resources import Tunnel
from epic.rotation import Holds, Policy, Step

STATUS = f"{API}/accounts/root/tunnels/status"
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def tunnel(tenant: httpx.AsyncClient, store: CachedStore) -> Tunnel:
    await tenant.post(PROXIES, json=proxy_body())
    await tenant.post(f"{API}/accounts/root/routes", json=route_body())
    await tenant.post(f"{API}/accounts/root/slices", json=slice_body(nodes=("n1",)))
    return store.list(Tunnel)[0]


def workload_end(live: Live, tunnel: Tunnel) -> None:
    trip = RoundTrip(last=0.002, min=0.001, avg=0.0015)
    end = End(holds=Holds(frozenset({1}), 1), hello_age=1.0, rx_packets=9, round_trip=trip, loss=0.25)
    live.take(workload_place(tunnel), {int(tunnel.name): end}, {"tag_wrong": 2})


async def shown(client: httpx.AsyncClient, tunnel: Tunnel) -> dict[str, Any]:
    items = (await client.get(STATUS)).json()["items"]
    return next(item for item in items if item["id"] == int(tunnel.name))


def epic_end(live: Live, tunnel: Tunnel, address: str = "198.51.100.7", age: float = 1.0) -> None:
    end = End(holds=Holds(frozenset({1}), 1), hello_age=age, observed=(address, 40000), tx_packets=4)
    live.take(Place("", "", tunnel.spec.epic_node), {int(tunnel.name): end}, {"tag_wrong": 3, "too_big": 0})


async def test_a_tunnel_that_nobody_spoke_of_is_shown_as_unknown(
    tenant: httpx.AsyncClient, tunnel: Tunnel
) -> None:
    found = await shown(tenant, tunnel)
    assert (found["state"], found["key"]["epoch"], found["key"]["epochs"]) == ("unknown", 1, [1])
    assert found["gateway"] == "root.U1"
    assert not {"epic-node", "epic-end", "workload-end", "observed-address"} & found.keys()
    assert tunnel.spec.keys[0].secret.get_secret_value() not in str(found)


async def test_both_ends_are_shown(tenant: httpx.AsyncClient, tunnel: Tunnel, live: Live) -> None:
    workload_end(live, tunnel)
    epic_end(live, tunnel)
    found = await shown(tenant, tunnel)
    assert found["state"] == "up"
    assert (found["observed-address"], found["observed-port"], found["nat"]) == ("198.51.100.7", 40000, True)
    assert found["epic-end"]["tx-packets"] == 4
    assert found["workload-end"]["round-trip"] == {"last": 0.002, "min": 0.001, "avg": 0.0015}
    assert (found["workload-end"]["loss"], found["workload-end"]["rx-packets"]) == (0.25, 9)
    (node,) = (await tenant.get(STATUS)).json()["nodes"]
    assert (node["cluster"], node["node"], node["drops"]) == ("c1", "n1", {"tag_wrong": 2})


async def test_a_tunnel_is_down_when_an_end_hears_nothing(
    tenant: httpx.AsyncClient, tunnel: Tunnel, live: Live
) -> None:
    workload_end(live, tunnel)
    epic_end(live, tunnel, age=17)
    assert (await shown(tenant, tunnel))["state"] == "down"


async def test_without_nat_the_observed_address_is_the_declared_one(
    tenant: httpx.AsyncClient, tunnel: Tunnel, live: Live
) -> None:
    epic_end(live, tunnel, address=str(tunnel.spec.node_address))
    assert (await shown(tenant, tunnel))["nat"] is False


async def test_an_account_sees_only_its_own_tunnels(anyone: httpx.AsyncClient, tunnel: Tunnel) -> None:
    other = STATUS.replace("root", "other")
    for path in (other, f"{API}/tunnels"):
        assert (await anyone.get(path, auth=TENANT)).status_code == 403
    assert (await anyone.get(other, auth=ADMIN)).json()["items"] == []
    assert (await anyone.get(STATUS, auth=TENANT)).json()["items"]


async def test_administrators_see_all_tunnels_and_what_nodes_drop(
    admin: httpx.AsyncClient, tunnel: Tunnel, live: Live
) -> None:
    admin.auth = httpx.BasicAuth(*ADMIN)
    drops = f"{API}/nodes/{tunnel.spec.epic_node}/drops"
    assert (await admin.get(drops)).json() == {"node": tunnel.spec.epic_node, "drops": {}}
    epic_end(live, tunnel)
    assert (await admin.get(drops)).json()["drops"] == {"tag_wrong": 3}
    assert (await admin.get(f"{API}/nodes/nowhere/drops")).status_code == 404
    body = (await admin.get(f"{API}/tunnels")).json()
    assert len(body["items"]) == 2
    assert [node["node"] for node in body["nodes"]] == [tunnel.spec.epic_node]


async def test_administrators_see_second_chances_of_all_gateways_by_node(
    anyone: httpx.AsyncClient, tunnel: Tunnel, live: Live
) -> None:
    mine, others = f"{tunnel.account}.web", "other.web"
    chances = {mine: SecondChance(hits=5, passed_on=2), others: SecondChance(hits=1)}
    live.take(epic_place(tunnel), {}, {}, second_chances=chances)
    anyone.auth = httpx.BasicAuth(*ADMIN)
    shown = (await anyone.get(f"{API}/tunnels")).json()["second-chances"]
    assert [(c["gateway"], c["epic-node"]) for c in shown] == sorted(
        (gateway, tunnel.spec.epic_node) for gateway in chances
    )


async def test_tenants_see_their_own_gateways_second_chances_without_names_of_epic_nodes(
    tenant: httpx.AsyncClient, tunnel: Tunnel, live: Live
) -> None:
    mine = f"{tunnel.account}.web"
    chances = {mine: SecondChance(hits=5, passed_on=2), "other.web": SecondChance(hits=1)}
    live.take(epic_place(tunnel), {}, {}, second_chances=chances)
    (shown,) = (await tenant.get(STATUS)).json()["second-chances"]
    assert (shown["gateway"], shown["hits"], shown["passed-on"]) == (mine, 5, 2)
    assert "epic-node" not in shown


NODES = f"{API}/accounts/root/workload-nodes"


async def test_workload_nodes_are_silent_since_they_reported_last_or_have_tunnels(
    anyone: httpx.AsyncClient, tunnel: Tunnel, store: CachedStore, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = 1000.0
    monkeypatch.setattr(live, "_clock", lambda: at)
    monkeypatch.setattr(live, "_began", 0.0)

    async def node() -> dict[str, Any]:
        (item,) = (await anyone.get(NODES, auth=TENANT)).json()["items"]
        assert (await anyone.get(f"{API}/workload-nodes", auth=ADMIN)).json()["items"] == [item]
        return dict(item)

    found = await node()
    assert found.pop("silent") < 60, "it cannot have been heard before it had a tunnel"
    assert found == {"account": "root", "cluster": "c1", "node": "n1", "tunnels": 2}
    for each in store.list(Tunnel):
        older = each.spec.model_copy(update={"signing_since": START})
        with store.transaction() as transaction:
            transaction.update(each.model_copy(update={"spec": older}))
    assert (await node())["silent"] == 1000
    workload_end(live, tunnel)
    at += 70
    assert (await node())["silent"] == 70


async def test_nodes_of_other_accounts_are_not_shown(anyone: httpx.AsyncClient, tunnel: Tunnel) -> None:
    assert (await anyone.get(f"{API}/workload-nodes", auth=TENANT)).status_code == 403
    assert (await anyone.get(f"{API}/accounts/other/workload-nodes", auth=TENANT)).status_code == 403
    assert (await anyone.get(f"{API}/accounts/other/workload-nodes", auth=ADMIN)).json() == {"items": []}


def confirm(live: Live, tunnel: Tunnel, places: tuple[Place, ...]) -> None:
    keys = Holds(frozenset(key.epoch for key in tunnel.spec.keys), tunnel.spec.signing_epoch)
    for place in places:
        live.take(place, {int(tunnel.name): End(holds=keys)}, {})


async def test_an_administrator_rotates_keys_and_sees_who_holds_it_up(
    admin: httpx.AsyncClient, tunnel: Tunnel, store: CachedStore, live: Live
) -> None:
    rotate = f"{API}/tunnels/rotate"
    assert (await admin.post(rotate)).status_code == 403
    admin.auth = httpx.BasicAuth(*ADMIN)
    ids = sorted(int(t.name) for t in store.list(Tunnel))
    assert (await admin.post(rotate)).json() == {"started": 0, "under-way": 0, "waiting": ids}

    epic, workload = epic_place(tunnel), workload_place(tunnel)
    confirm(live, tunnel, (epic, workload))
    waiting = [id_ for id_ in ids if id_ != int(tunnel.name)]
    assert (await admin.post(rotate)).json() == {"started": 1, "under-way": 0, "waiting": waiting}
    assert (await admin.post(rotate)).json() == {"started": 0, "under-way": 1, "waiting": waiting}

    begun = store.get(Tunnel, "root", tunnel.name)
    assert (await shown(admin, tunnel))["key"]["waits-for"] == [epic.node, "c1/n1"]
    admin.auth = httpx.BasicAuth(*TENANT)
    assert (await shown(admin, tunnel))["key"]["waits-for"] == ["EPIC", "c1/n1"]
    ours = next(told for told in await tunnels_of(store, "n1") if told.id == int(tunnel.name))
    assert ([key.epoch for key in ours.keys], ours.signing_epoch) == ([1, 2], 1)
    confirm(live, begun, (epic,))
    assert (await shown(admin, tunnel))["key"]["waits-for"] == ["c1/n1"]


async def test_keys_go_through_all_steps_as_the_ends_confirm(
    tunnel: Tunnel, store: CachedStore, live: Live
) -> None:
    policy = Policy(timedelta(0), timedelta(0))
    places = (epic_place(tunnel), workload_place(tunnel))
    steps: list[Step] = []
    for _ in range(3):
        assert not advance(store, live, policy) or not steps
        confirm(live, store.get(Tunnel, "root", tunnel.name), places)
        steps += advance(store, live, policy)
    assert steps == [Step.BEGIN, Step.SIGN, Step.FINISH]
    spec = store.get(Tunnel, "root", tunnel.name).spec
    assert ([key.epoch for key in spec.keys], spec.signing_epoch) == ([2], 2)
    assert spec.keys[0].secret != tunnel.spec.keys[0].secret
    # The other tunnel, whose ends say nothing, is as it was.
    (other,) = (t for t in store.list(Tunnel) if t.name != tunnel.name)
    assert [key.epoch for key in other.spec.keys] == [1]


async def test_arrears_are_made_up_for_at_a_steady_rate_and_the_oldest_first(
    tunnel: Tunnel, store: CachedStore, live: Live
) -> None:
    """As when the control plane was away: all keys are old."""
    with store.transaction() as transaction:
        for number in range(100, 220):
            old = tunnel.spec.model_copy(update={"signing_since": START + timedelta(seconds=-number % 7)})
            metadata = tunnel.metadata.model_copy(update={"name": str(number)})
            transaction.create(Tunnel(metadata=metadata, spec=old))
    aged = [t for t in store.list(Tunnel) if int(t.name) >= 100]
    for place in (epic_place(tunnel), workload_place(tunnel)):
        live.take(place, {int(t.name): End(holds=Holds(frozenset({1}), 1)) for t in aged}, {})
    begun = [advance(store, live, Policy(), pause=timedelta(seconds=30))[Step.BEGIN] for _ in range(2)]
    assert begun == [13, 13], "of 122, twice a twentieth"
    rotating = [t for t in store.list(Tunnel) if len(t.spec.keys) == 2]
    since = sorted(t.spec.signing_since for t in aged)
    assert sorted(t.spec.signing_since for t in rotating) == since[:26]


async def test_the_service_rotates_by_itself(tunnel: Tunnel, store: CachedStore, live: Live) -> None:
    task = asyncio.create_task(Rotator(store, live, Policy(timedelta(0), timedelta(0)), 0.01).run())
    async with asyncio.timeout(60):
        while store.get(Tunnel, "root", tunnel.name).spec.signing_epoch < 3:
            places = (epic_place(tunnel), workload_place(tunnel))
            confirm(live, store.get(Tunnel, "root", tunnel.name), places)
            await asyncio.sleep(0.005)
    task.cancel()
