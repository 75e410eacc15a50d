# SPDX-License-Identifier: Apache-2.0
"""Nodes over REST: joining, maintenance, removal, and what becomes of gateways."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from api_requests import API, PROXIES, proxy_body
from life_plant import Plant

from epic.ads.desired.assemble import node_state
from epic.cache.store import CachedStore
from epic.live import Live
from epic.model.nodes import NodeRevocation, Quarantine
from epic.model.resources import GWProxy, Node
from epic.model.runs import Run
from epic.model.siblings import Siblings

NODES = f"{API}/nodes"


def phases(store: CachedStore, uid: str = "U1") -> dict[str, str]:
    return {i.node: i.phase for i in store.get(GWProxy, "root", uid).status.instances}


async def node(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(f"{NODES}/{name}")).json()["node"]
    return found


def condition(shown: dict[str, Any], kind: str) -> tuple[str, str]:
    (found,) = [c for c in shown["status"]["conditions"] if c["type"] == kind]
    assert found["lastTransitionTime"]
    return found["status"], found["reason"]


async def maintain(client: httpx.AsyncClient, name: str, **what: bool) -> httpx.Response:
    return await client.put(f"{NODES}/{name}/maintenance", json={"maintenance": what})


async def test_a_node_is_shown_with_its_newest_report_which_is_not_stored(
    admin: httpx.AsyncClient, store: CachedStore, live: Live
) -> None:
    first = datetime(2026, 1, 1, tzinfo=UTC)
    live.heartbeats.hear("epic1", first)
    assert (await node(admin, "epic1"))["status"].get("last-report") is None, "it has not been noted"
    with store.transaction() as transaction:
        stored = transaction.get(Node, "", "epic1")
        status = stored.status.model_copy(update={"last_report": first})
        transaction.update(stored.model_copy(update={"status": status}))
    revision = store.revision
    live.heartbeats.hear("epic1", first + timedelta(hours=1))
    assert (await node(admin, "epic1"))["status"]["last-report"] == "2026-01-01T01:00:00Z"
    (listed, *_) = (await admin.get(NODES)).json()["items"]
    assert listed["status"]["last-report"] == "2026-01-01T01:00:00Z"
    assert store.revision == revision


async def test_only_the_drain_for_which_it_was_said_does_without_routers_that_hear_others(
    admin: httpx.AsyncClient, store: CachedStore
) -> None:
    def unheard_ok() -> bool:
        return store.get(Node, "", "epic1").spec.unheard_ok

    async def asked(**what: bool) -> int:
        body = {"maintenance": {name.replace("_", "-"): value for name, value in what.items()}}
        return (await admin.put(f"{NODES}/epic1/maintenance", json=body)).status_code

    assert await asked(schedulable=False, drain=True) == 302
    assert not unheard_ok()
    assert await asked(drain=True, unheard_ok=True) == 302
    assert unheard_ok()
    registered = {"node": {"spec": {"address": "192.0.2.1", "capacity": 9}}}
    assert (await admin.put(f"{NODES}/epic1", json=registered)).status_code == 302
    assert unheard_ok()
    assert await asked(drain=True) == 302
    assert not unheard_ok()
    assert await asked(drain=True, unheard_ok=True) == 302
    assert await asked(drain=False) == 302
    assert not unheard_ok()
    assert await asked(drain=True, unheard_ok=True) == 302
    registered["node"]["spec"] |= {"drain": True}
    assert (await admin.put(f"{NODES}/epic1", json=registered)).status_code == 302
    assert not unheard_ok()


async def test_a_node_that_joins_gets_instances_of_gateways_that_have_too_few(
    admin: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    await maintain(admin, "epic2", schedulable=False)
    await admin.post(PROXIES, json=proxy_body())
    plant.settle()
    assert phases(store) == {"epic1": "Serving"}
    await admin.put(f"{NODES}/epic3", json={"node": {"spec": {"address": "192.0.2.3"}}})
    assert (await node(admin, "epic3"))["status"]["phase"] == "Joining"
    plant.settle(turns=20)
    assert phases(store) == {"epic1": "Serving", "epic3": "Serving"}
    shown = await node(admin, "epic3")
    assert (shown["status"]["phase"], shown["status"]["instances"]) == ("Ready", {"Serving": 1})
    assert condition(shown, "Ready") == ("True", "Reporting")


async def test_registering_a_node_again_leaves_its_maintenance_as_it_is(
    admin: httpx.AsyncClient, store: CachedStore
) -> None:
    await maintain(admin, "epic1", schedulable=False, drain=True)
    await admin.put(f"{NODES}/epic1", json={"node": {"spec": {"address": "192.0.2.1", "capacity": 9}}})
    spec = store.get(Node, "", "epic1").spec
    assert (spec.schedulable, spec.drain, spec.capacity) == (False, True, 9)
    await maintain(admin, "epic1", drain=False)
    spec = store.get(Node, "", "epic1").spec
    assert (spec.schedulable, spec.drain) == (False, False)


async def test_draining_a_node_parks_its_instances_and_resuming_serves_again(
    admin: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    await admin.post(PROXIES, json=proxy_body())
    plant.settle()
    await maintain(admin, "epic1", schedulable=False, drain=True)
    plant.reconcile()
    assert phases(store) == {"epic1": "Draining", "epic2": "Serving"}
    shown = await node(admin, "epic1")
    assert shown["status"]["phase"] == "Draining"
    assert condition(shown, "Drained") == ("False", "InstancesServe")
    plant.settle(turns=20)
    assert phases(store) == {"epic1": "Withdrawn", "epic2": "Serving"}
    assert condition(await node(admin, "epic1"), "Drained") == ("True", "NoInstanceServes")
    await maintain(admin, "epic1", schedulable=True, drain=False)
    plant.settle(turns=20)
    assert phases(store) == {"epic1": "Serving", "epic2": "Serving"}


async def test_the_last_instance_that_serves_is_not_drained_and_it_is_said_why(
    admin: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    await admin.post(PROXIES, json=proxy_body())
    plant.settle()
    for name in ("epic1", "epic2"):
        await maintain(admin, name, schedulable=False, drain=True)
        plant.settle(turns=20)
    assert phases(store) == {"epic1": "Withdrawn", "epic2": "Serving"}
    shown = await node(admin, "epic2")
    assert condition(shown, "Drained") == ("False", "NoOtherInstance")
    await admin.put(f"{NODES}/epic3", json={"node": {"spec": {"address": "192.0.2.3"}}})
    plant.settle(turns=30)
    assert phases(store) == {"epic1": "Withdrawn", "epic2": "Withdrawn", "epic3": "Serving"}


async def test_a_removed_node_is_emptied_told_and_forgotten(
    admin: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    await admin.put(f"{NODES}/epic3", json={"node": {"spec": {"address": "192.0.2.3"}}})
    await admin.post(PROXIES, json=proxy_body())
    plant.settle(turns=20)
    (first, _) = phases(store)
    assert (await admin.delete(f"{NODES}/{first}")).status_code == 200
    plant.reconcile()
    shown = await node(admin, first)
    assert (shown["status"]["phase"], bool(shown["metadata"]["deletionTimestamp"])) == ("Removing", True)
    body = {"node": {"spec": {"address": "192.0.2.1"}}}
    assert (await admin.put(f"{NODES}/{first}", json=body)).status_code == 409
    assert (await maintain(admin, first, drain=False)).status_code == 409
    plant.settle(turns=40)
    assert (await admin.get(f"{NODES}/{first}")).status_code == 404
    assert first not in phases(store)
    assert list(phases(store).values()) == ["Serving", "Serving"]
    assert plant.epic[first].units == {}
    assert store.find(NodeRevocation, "", first) is not None


async def test_a_node_that_is_away_stays_until_it_is_removed_by_force(
    admin: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    await admin.post(PROXIES, json=proxy_body())
    plant.settle()
    inside = {i.node: i.inside_address for i in store.get(GWProxy, "root", "U1").status.instances}
    plant.epic["epic2"].connected = False
    await admin.delete(f"{NODES}/epic2")
    plant.settle(turns=20)
    assert (await node(admin, "epic2"))["status"]["phase"] == "Removing"
    await admin.delete(f"{NODES}/epic2", params={"force": "true"})
    assert store.find(NodeRevocation, "", "epic2") is not None
    plant.settle(turns=5)
    assert (await admin.get(f"{NODES}/epic2")).status_code == 404
    assert phases(store) == {"epic1": "Serving"}
    (held,) = store.list(Quarantine)
    assert (held.spec.inside_address, held.spec.gateway) == (inside["epic2"], "root.U1")
    await admin.delete(f"{API}/accounts/root/proxies/U1")
    plant.settle(turns=20)
    assert store.list(GWProxy) == []
    other = (await admin.post(PROXIES, json=proxy_body("U2"))).json()["proxy"]
    assert other["spec"]["public-address"] == "203.0.113.11", "the lost node may announce the other"
    plant.clock.pass_(601)
    plant.settle(turns=5)
    assert store.list(Quarantine) == []


async def test_what_a_node_that_is_removed_by_force_knows_of_siblings_is_worth_nothing_at_once(
    admin: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    plant.settle()
    await admin.post(PROXIES, json=proxy_body())
    before = store.get(Siblings, "root", "U1").spec
    assert set(before.nodes) == {"epic1", "epic2"}
    await admin.delete(f"{NODES}/epic2", params={"force": "true"})
    after = store.get(Siblings, "root", "U1").spec
    assert after.nodes == ("epic1",)
    assert not {key.secret for key in before.keys} & {key.secret for key in after.keys}


async def test_no_reply_holds_a_key_of_siblings_and_a_gateway_says_why_it_is_held(
    admin: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    plant.settle()
    await admin.post(PROXIES, json=proxy_body())
    secrets = [key.secret.get_secret_value() for key in store.get(Siblings, "root", "U1").spec.keys]
    path = "/api/epic/accounts/root/proxies"
    replies = [await admin.get(where) for where in (path, f"{path}/U1", NODES, f"{NODES}/epic1")]
    assert all(secret not in reply.text for secret in secrets for reply in replies)
    status = replies[1].json()["proxy"]["status"]
    assert {instance["hold"].partition(":")[0] for instance in status["instances"]} == {"WaitsForSiblings"}
    assert [c["reason"] for c in status["conditions"] if c["type"] == "SecondChance"] == ["WaitsForSiblings"]


async def test_a_node_that_comes_back_after_a_removal_is_to_drop_what_it_had_before(
    admin: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    assert not store.get(Node, "", "epic2").status.returning
    await admin.delete(f"{NODES}/epic2", params={"force": "true"})
    plant.reconcile()
    plant.clock.pass_(60)
    await admin.put(f"{NODES}/epic2", json={"node": {"spec": {"address": "192.0.2.2"}}})
    back = store.get(Node, "", "epic2")
    assert back.status.returning
    state = node_state(back, [])
    assert state.meant_digest == state.digest, "its agent would hold back an order to drop everything"
    with store.transaction() as transaction:
        status = back.status.model_copy(update={"applied_digest": state.digest})
        transaction.update(back.model_copy(update={"status": status}))
    plant.reconcile()
    settled = store.get(Node, "", "epic2")
    assert not settled.status.returning
    assert node_state(settled, []).meant_digest == ""


async def test_a_node_that_comes_back_gets_a_run_that_removes_its_units_of_the_time_before(
    admin: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    assert not store.list(Run), "who was never removed waits for gateways"
    await admin.delete(f"{NODES}/epic2", params={"force": "true"})
    plant.reconcile()
    await admin.put(f"{NODES}/epic2", json={"node": {"spec": {"address": "192.0.2.2"}}})
    assert [run.spec.nodes for run in store.list(Run)] == [("epic2",)]
    await admin.put(f"{NODES}/epic2", json={"node": {"spec": {"address": "192.0.2.2"}}})
    assert len(store.list(Run)) == 1


async def test_an_order_that_a_node_holds_back_can_be_accepted(
    admin: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    plant.settle()
    with store.transaction() as transaction:
        stored = transaction.get(Node, "", "epic1")
        status = stored.status.model_copy(update={"held_gateways": ("root.U1",)})
        transaction.update(stored.model_copy(update={"status": status}))
    plant.reconcile()
    assert condition(await node(admin, "epic1"), "DropHeld") == ("True", "TooManyAtOnce")
    await admin.put(f"{NODES}/epic1/accept-drop")
    status = store.get(Node, "", "epic1").status
    assert status.meant_digest == status.applied_digest != ""
