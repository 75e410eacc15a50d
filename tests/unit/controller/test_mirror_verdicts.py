# SPDX-License-Identifier: Apache-2.0
"""When routes are asked for anew, for gateways may say something else of them: once for each change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from counted_client import ACCOUNT, CountedClient, taken

from epic.ads.reports import configured
from epic.client import EpicClient
from epic.controller.desired import Desired, Item
from epic.controller.mirror import Mirror, MirrorSettings, Outcome
from epic.controller.state import StateFile
from epic.gatewayapi.attached import room
from epic.lifecycle.conditions import with_proxy_condition
from epic.model.base import Condition
from epic.model.resources import GWProxy

Desire = Callable[..., Desired]
Judge = Callable[..., None]


@pytest.fixture
def judge(live_api: Any) -> Judge:
    """Says of gateways that they are accepted, with so many routes left out."""

    def say(name: str, left_out: int = 0) -> None:
        with live_api.store.transaction() as transaction:
            proxy = transaction.get(GWProxy, "shop", name)
            transaction.update(configured(proxy, f"r{proxy.metadata.resource_version}", None, left_out))

    return say


def _mirror(tmp_path: Path, client: CountedClient) -> Mirror:
    return Mirror(StateFile(tmp_path / "made.json"), lambda _: client, MirrorSettings("lab/node1"))


def _gateway(item: Item, name: str) -> Item:
    client_ref = {**item.spec["clientRef"], "name": name, "uid": name}
    spec = {**item.spec, "clientRef": client_ref, "display-name": name}
    return replace(item, uid=name, ref=item.ref._replace(name=name), spec=spec)


def _at_8080(item: Item) -> Item:
    (listener,), (port,) = item.spec["gateway"]["listeners"], item.spec["public-ports"]
    gateway = {**item.spec["gateway"], "listeners": [{**listener, "port": 8080}]}
    return replace(item, spec={**item.spec, "gateway": gateway, "public-ports": [{**port, "port": 8080}]})


def _route(item: Item, name: str, gateway: str, port: int | None = None, path: str = "/") -> Item:
    ref = {**item.spec["http"]["parentRefs"][0], "name": gateway, **({"port": port} if port else {})}
    rule = {**item.spec["http"]["rules"][0], "matches": [{"path": {"type": "PathPrefix", "value": path}}]}
    client_ref = {**item.spec["clientRef"], "name": name, "uid": name}
    http = {**item.spec["http"], "parentRefs": [ref], "rules": [rule]}
    spec = {**item.spec, "clientRef": client_ref, "http": http}
    return replace(item, uid=name, ref=item.ref._replace(name=name), spec=spec)


def _site(desired: Desired) -> Desired:
    """Gateways `one` and `two`; each has a route that it takes, and one for a port that it has not."""
    (gateway,), (route,) = desired.proxies, desired.routes
    routes = [
        _route(route, f"{kind}-{name}", name, port)
        for name in ("one", "two")
        for kind, port in (("taken", None), ("refused", 8080))
    ]
    gateways = tuple(_gateway(gateway, name) for name in ("one", "two"))
    return replace(desired, proxies=gateways, routes=tuple(routes))


def _asked(mirror: Mirror, client: CountedClient, wish: Desired) -> list[str]:
    """The routes that the next pass asks for, when everything has been listed again."""
    mirror.expire()
    taken(client)
    mirror.reconcile(wish)
    found = [request for request in taken(client) if not request.endswith(("/proxies", "/members"))]
    assert found[:2] == ["GET /slices", "GET /routes"]
    assert all(request.startswith("GET /routes/") for request in found[2:])
    return sorted(request.removeprefix("GET /routes/") for request in found[2:])


def _said(outcomes: list[Outcome]) -> dict[str, str]:
    return {o.address.uid: o.reason for o in outcomes if o.action == "warned"}


def test_a_gateway_that_decides_otherwise_has_its_refused_routes_asked_for_once_and_no_others(
    tmp_path: Path,
    client: CountedClient,
    desired: Desire,
    live_api: Any,
    admin: EpicClient,
    judge: Judge,
) -> None:
    mirror, wish = _mirror(tmp_path, client), _site(desired())
    mirror.reconcile(wish)
    judge("one")
    judge("two")
    assert _asked(mirror, client, wish) == ["refused-one", "refused-two"]

    # What changes without its having a say in what is taken: its nodes, and its revision.
    with live_api.store.transaction() as transaction:
        for name in ("one", "two"):
            said = Condition(type="Connected", status="False", reason="Pending", message="two tunnels")
            transaction.update(with_proxy_condition(transaction.get(GWProxy, "shop", name), said))
    judge("one")
    assert _asked(mirror, client, wish) == []

    one = _at_8080(wish.proxies[0])
    admin.put(one.address.path, one.body)
    changed = replace(wish, proxies=(one, wish.proxies[1]))
    assert _asked(mirror, client, changed) == ["refused-one"]
    assert _said(mirror.reconcile(changed)) == {"refused-two": "NoMatchingParent"}
    assert _asked(mirror, client, changed) == []


def _sharing(desired: Desired, admin: EpicClient) -> Desired:
    """A Gateway that shares the gateway `both`, a route that it takes, and one for a port that it has not."""
    template = {"group": {"spec": {"service-prefix": "default", "can-be-shared": True}}}
    admin.put(f"{ACCOUNT}/groups/http", template)
    (gateway,), (route,) = desired.proxies, desired.routes
    member = replace(gateway, collection="members", spec={**gateway.spec, "sharing-key": "both"})
    routes = (_route(route, "taken", "both"), _route(route, "refused", "both", 8080))
    return replace(desired, proxies=(member,), routes=routes)


def test_who_joins_a_gateway_has_its_refused_routes_asked_for_once(
    tmp_path: Path, client: CountedClient, desired: Desire, admin: EpicClient
) -> None:
    mirror, wish = _mirror(tmp_path, client), _sharing(desired(), admin)
    mirror.reconcile(wish)
    _asked(mirror, client, wish)
    assert _asked(mirror, client, wish) == []
    (member,) = wish.proxies
    client_ref = {**member.spec["clientRef"], "clusterID": "other", "uid": "other"}
    joining = replace(member, uid="other", spec={**member.spec, "clientRef": client_ref})
    admin.create(joining.create_path, joining.body)
    assert _asked(mirror, client, wish) == ["refused"]
    assert _asked(mirror, client, wish) == []


def test_what_becomes_of_a_gateway_by_its_members_own_write_is_seen_in_the_next_pass(
    tmp_path: Path, client: CountedClient, desired: Desire, admin: EpicClient
) -> None:
    mirror, wish = _mirror(tmp_path, client), _sharing(desired(), admin)
    assert _said(mirror.reconcile(wish)) == {"refused": "NoMatchingParent"}
    _asked(mirror, client, wish)
    changed = replace(wish, proxies=(_at_8080(wish.proxies[0]),))
    mirror.reconcile(changed)
    taken(client)
    assert _said(mirror.reconcile(changed)) == {}
    assert taken(client) == ["GET /proxies", "GET /routes/refused"]


def _full(desired: Desired, monkeypatch: pytest.MonkeyPatch) -> Desired:
    """Of two routes of gateway `one` there is room for either; `two` has one of its own."""
    monkeypatch.setattr(room, "LARGEST", 1000)
    site, (route,) = _site(desired), desired.routes
    mine = _route(route, "mine", "one", path=f"/{'m' * 500}")
    return replace(site, routes=(mine, _route(route, "elsewhere", "two")))


def _older(item: Item, admin: EpicClient) -> Item:
    """Makes another host's route that is older than this one, at the same gateway."""
    older = _route(item, "older", "one", path=f"/{'o' * 500}")
    client_ref = {**older.spec["clientRef"], "creationTimestamp": "2001-01-01T00:00:00Z"}
    older = replace(older, spec={**older.spec, "clientRef": client_ref})
    admin.create(older.create_path, older.body)
    return older


def test_a_route_that_is_pushed_out_says_so_until_there_is_room_and_costs_a_request_each_time(
    tmp_path: Path,
    client: CountedClient,
    desired: Desire,
    admin: EpicClient,
    judge: Judge,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mirror, wish = _mirror(tmp_path, client), _full(desired(), monkeypatch)
    mirror.reconcile(wish)
    judge("one")
    judge("two")
    assert _asked(mirror, client, wish) == []
    older = _older(wish.routes[0], admin)
    judge("one", left_out=1)
    assert _asked(mirror, client, wish) == ["mine"]
    assert _said(mirror.reconcile(wish)) == {"mine": "UnsupportedValue"}
    judge("one", left_out=1)
    assert _asked(mirror, client, wish) == []
    judge("one", left_out=2)
    assert _asked(mirror, client, wish) == ["mine"]
    admin.delete(older.address.path)
    judge("one")
    assert _asked(mirror, client, wish) == ["mine"]
    assert mirror.reconcile(wish) == []
    assert _asked(mirror, client, wish) == []


def test_after_a_restart_routes_of_a_gateway_that_leaves_some_out_are_asked_for(
    tmp_path: Path,
    client: CountedClient,
    desired: Desire,
    admin: EpicClient,
    judge: Judge,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wish = _full(desired(), monkeypatch)
    _mirror(tmp_path, client).reconcile(wish)
    _older(wish.routes[0], admin)
    judge("one", left_out=1)
    mirror = _mirror(tmp_path, client)
    assert _asked(mirror, client, wish) == ["mine"]
    assert _said(mirror.reconcile(wish)) == {"mine": "UnsupportedValue"}


def test_a_route_of_which_no_answer_came_is_asked_for_again(
    tmp_path: Path,
    client: CountedClient,
    desired: Desire,
    admin: EpicClient,
    judge: Judge,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mirror, wish = _mirror(tmp_path, client), _full(desired(), monkeypatch)
    mirror.reconcile(wish)
    _older(wish.routes[0], admin)
    judge("one", left_out=1)
    client.lost = frozenset({"GET /routes/mine"})
    assert _asked(mirror, client, wish) == ["mine"]
    client.lost = frozenset()
    # A list of routes, which does not say what gateways make of them, answers nothing.
    assert _asked(mirror, client, wish) == ["mine"]
    assert _said(mirror.reconcile(wish)) == {"mine": "UnsupportedValue"}
