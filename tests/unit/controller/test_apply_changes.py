# SPDX-License-Identifier: Apache-2.0
"""The applier against the real API: idempotence, change, removal, restart, sharing, failures."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from manifests import shop, translated

from epic.client import EpicClient
from epic.controller.apply import Applier
from epic.controller.desired import Desired, EpicConnection
from epic.controller.state import StateFile
from epic.errors import Unavailable
from epic.model.resources import GWEndpointSlice, GWProxy, GWRoute

ACCOUNT = "/api/epic/accounts/shop"


@pytest.fixture
def admin(live_api: Any) -> EpicClient:
    client = EpicClient(live_api.url, live_api.username, live_api.password)
    client.post("/api/epic/accounts", {"account": {"metadata": {"name": "shop"}}})
    pool = {"pool": "203.0.113.0/28", "subnet": "203.0.113.0/24"}
    client.put("/api/epic/service-prefixes/default", {"service-prefix": {"spec": {"public-pool": pool}}})
    client.put(f"{ACCOUNT}/groups/http", {"group": {"spec": {"service-prefix": "default"}}})
    client.post(f"{ACCOUNT}/users", {"user": {"name": "shop", "password": "shop-password"}})
    return client


@pytest.fixture
def desired(live_api: Any) -> Callable[..., Desired]:
    """A translation whose connection leads to the live API."""

    def make(**changes: Any) -> Desired:
        found = translated(shop(**changes))
        here = EpicConnection(live_api.url, "shop", "shop", "shop-password", "lab")
        moved = {
            name: tuple(replace(item, connection=here) for item in getattr(found, name))
            for name in ("proxies", "slices", "routes")
        }
        return replace(found, connections=(here,), **moved)

    return make


@pytest.fixture
def applier(tmp_path: Path) -> Applier:
    return _applier(tmp_path)


def _applier(tmp_path: Path) -> Applier:
    return Applier(
        StateFile(tmp_path / "state" / "made.json"), lambda c: EpicClient(c.server, c.username, c.password)
    )


def test_everything_is_made_and_a_second_time_nothing_is_written(
    admin: EpicClient, live_api: Any, applier: Applier, desired: Callable[..., Desired]
) -> None:
    assert [o.action for o in applier.reconcile(desired())] == ["created"] * 3
    revision = live_api.store.revision
    assert [o.action for o in applier.reconcile(desired())] == ["unchanged"] * 3
    assert live_api.store.revision == revision
    (proxy,) = admin.get(f"{ACCOUNT}/proxies")["items"]
    assert list(proxy["spec"]["gue-tunnel-endpoints"]) == ["192.168.50.11"]


def test_a_change_is_written_by_put(
    admin: EpicClient, applier: Applier, desired: Callable[..., Desired]
) -> None:
    applier.reconcile(desired())

    def other_port(content: dict[str, Any]) -> None:
        content["spec"]["listeners"][0]["port"] = 8080

    actions = {o.address.collection: o.action for o in applier.reconcile(desired(Gateway=other_port))}
    assert actions == {"proxies": "configured", "slices": "unchanged", "routes": "unchanged"}
    (proxy,) = admin.get(f"{ACCOUNT}/proxies")["items"]
    assert proxy["spec"]["public-ports"][0]["port"] == 8080


def test_what_is_desired_no_more_is_deleted_also_after_a_restart(
    admin: EpicClient, live_api: Any, tmp_path: Path, desired: Callable[..., Desired]
) -> None:
    _applier(tmp_path).reconcile(desired())
    outcomes = _applier(tmp_path).reconcile(Desired())
    assert [(o.address.collection, o.action) for o in outcomes] == [
        ("routes", "deleted"),
        ("slices", "deleted"),
        ("proxies", "deleted"),
    ]
    assert not [o for kind in (GWRoute, GWEndpointSlice) for o in live_api.store.list(kind)]
    assert [proxy.deleting for proxy in live_api.store.list(GWProxy)] == [True]
    assert _applier(tmp_path).reconcile(Desired()) == []


def test_what_is_being_deleted_is_not_taken_for_what_is_desired_and_made_anew_afterwards(
    admin: EpicClient, live_api: Any, applier: Applier, desired: Callable[..., Desired]
) -> None:
    applier.reconcile(desired())
    (proxy,) = live_api.store.list(GWProxy)
    admin.delete(f"{ACCOUNT}/proxies/{proxy.name}")
    (outcome,) = [o for o in applier.reconcile(desired()) if o.address.collection == "proxies"]
    assert (outcome.action, outcome.message[:20]) == ("failed", "it is being deleted;")
    with live_api.store.transaction() as transaction:
        transaction.delete(GWProxy, proxy.account, proxy.name)
    (outcome,) = [o for o in applier.reconcile(desired()) if o.address.collection == "proxies"]
    assert outcome.action == "created"


def test_held_objects_and_objects_of_unknown_files_stay(
    admin: EpicClient, applier: Applier, desired: Callable[..., Desired]
) -> None:
    made = desired()
    applier.reconcile(made)
    assert applier.reconcile(Desired(), prune=False) == []
    held = frozenset(item.ref for item in made.items)
    assert applier.reconcile(Desired(held=held)) == []


def test_another_clusters_shared_gateway_is_used_and_left(
    admin: EpicClient, applier: Applier, desired: Callable[..., Desired]
) -> None:
    def share(content: dict[str, Any]) -> None:
        content["metadata"]["annotations"] = {"puregw.epic-gateway.org/sharing-key": "web"}

    theirs = desired(Gateway=share).proxies[0]
    spec = theirs.spec | {"clientRef": {"clusterID": "far", "namespace": "x", "name": "web", "uid": "web"}}
    admin.post(theirs.create_path, {"proxy": {"spec": spec}})
    outcomes = {o.address.collection: o.action for o in applier.reconcile(desired(Gateway=share))}
    assert outcomes["proxies"] == "left"
    removed = {o.address.collection: o.action for o in applier.reconcile(Desired())}
    assert removed == {"routes": "deleted", "slices": "deleted", "proxies": "left"}
    assert admin.get(f"{ACCOUNT}/proxies/web")["proxy"]["spec"]["clientRef"]["clusterID"] == "far"


def test_an_unreachable_server_is_asked_once_and_everything_is_tried_again_later(
    applier: Applier, desired: Callable[..., Desired], live_api: Any, admin: EpicClient
) -> None:
    nowhere = EpicConnection("http://127.0.0.1:1", "shop", "shop", "x", "lab")
    found = desired()
    lost = replace(
        found,
        connections=(nowhere,),
        proxies=tuple(replace(i, connection=nowhere) for i in found.proxies),
        slices=tuple(replace(i, connection=nowhere) for i in found.slices),
        routes=(),
    )
    outcomes = applier.reconcile(lost)
    assert [o.action for o in outcomes] == ["failed", "failed"]
    assert outcomes[1].message == "http://127.0.0.1:1 cannot be reached"


def test_a_refused_object_does_not_stop_the_others(
    admin: EpicClient, applier: Applier, desired: Callable[..., Desired]
) -> None:
    wanted = desired()
    broken = replace(wanted.proxies[0], group="nonsense")
    outcomes = applier.reconcile(replace(wanted, proxies=(broken,)))
    assert [o.action for o in outcomes] == ["failed", "created", "created"]
    assert "nonsense" in outcomes[0].message


def test_the_state_is_for_root_only_and_a_broken_one_is_named(
    admin: EpicClient, tmp_path: Path, desired: Callable[..., Desired]
) -> None:
    _applier(tmp_path).reconcile(desired())
    path = tmp_path / "state" / "made.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("{")
    with pytest.raises(Unavailable, match=r"made\.json"):
        _applier(tmp_path).reconcile(desired())
