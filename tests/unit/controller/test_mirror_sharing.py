# SPDX-License-Identifier: Apache-2.0
"""Clusters that share a gateway: one is made, each leaves with its own, the last takes the gateway along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from manifests import shop, translated

from epic.client import EpicClient
from epic.controller.desired import Desired, EpicConnection
from epic.controller.mirror import Mirror, MirrorSettings, Outcome
from epic.controller.state import StateFile
from epic.model.members import GWMember
from epic.model.resources import GWEndpointSlice, GWProxy, GWRoute

ACCOUNT = "/api/epic/accounts/shop"
Desire = Callable[..., Desired]


@pytest.fixture
def wish(live_api: Any, admin: EpicClient) -> Desire:
    """What a cluster's manifests ask for: a Gateway with a sharing key, a route, a slice."""
    group = {"group": {"spec": {"service-prefix": "default", "can-be-shared": True}}}
    admin.put(f"{ACCOUNT}/groups/http", group)

    def make(cluster: str, port: int = 80, key: str = "web", called: str = "web") -> Desired:
        def named(content: dict[str, Any]) -> None:
            content["spec"]["epic"]["cluster-name"] = cluster

        def sharing(content: dict[str, Any]) -> None:
            content["metadata"]["annotations"] = {"puregw.epic-gateway.org/sharing-key": key} if key else {}
            content["spec"]["listeners"][0]["port"] = port

        found = translated(shop(GatewayClassConfig=named, Gateway=sharing))
        here = EpicConnection(live_api.url, "shop", "shop", "shop-password", cluster)
        moved = {
            name: tuple(replace(item, connection=here) for item in getattr(found, name))
            for name in ("proxies", "slices", "routes")
        }
        proxies = [replace(i, spec={**i.spec, "display-name": called}) for i in moved.pop("proxies")]
        return replace(found, connections=(here,), proxies=tuple(proxies), **moved)

    return make


def _mirror(tmp_path: Path, cluster: str, host: str = "node1") -> Mirror:
    return Mirror(
        StateFile(tmp_path / cluster / host / "made.json"),
        lambda c: EpicClient(c.server, c.username, c.password),
        MirrorSettings(f"{cluster}/{host}"),
    )


def test_a_route_that_the_shared_gateway_does_not_take_is_said_until_it_does(
    tmp_path: Path, wish: Desire
) -> None:
    """The listeners are the first's, and the second's route is for another of its own."""

    def at_port(found: Desired, port: int) -> Desired:
        (route,) = found.routes
        (parent,) = route.spec["http"]["parentRefs"]
        http = {**route.spec["http"], "parentRefs": [{**parent, "port": port}]}
        return replace(found, routes=(replace(route, spec={**route.spec, "http": http}),))

    def said(outcomes: list[Outcome]) -> list[tuple[str, str]]:
        return [(o.action, o.reason) for o in outcomes if o.address.collection == "routes"]

    first, second = _mirror(tmp_path, "a"), _mirror(tmp_path, "b")
    first.reconcile(wish("a"))
    asked = at_port(wish("b", port=8080), 8080)
    found = second.reconcile(asked)
    assert said(found) == [("created", ""), ("warned", "NoMatchingParent")]
    (text,) = (o.message for o in found if o.reason == "NoMatchingParent")
    assert text.startswith("gateway 'web' does not take it: The gateway has no listener with port 8080")
    assert said(second.reconcile(asked)) == [("warned", "NoMatchingParent")]
    first.reconcile(wish("a", port=8080))
    second.expire()
    assert said(second.reconcile(asked)) == []


def test_a_route_that_waits_for_its_gateways_listener_is_said_until_that_is_written(
    tmp_path: Path, wish: Desire
) -> None:
    mirror, before, after = _mirror(tmp_path, "a"), wish("a", key=""), wish("a", port=8080, key="")
    (route,) = before.routes
    (parent,) = route.spec["http"]["parentRefs"]
    http = {**route.spec["http"], "parentRefs": [{**parent, "port": 8080}]}
    # A translation that has nothing new to say of the route gives the same item.
    routes = (replace(route, spec={**route.spec, "http": http}),)
    found = mirror.reconcile(replace(before, routes=routes))
    assert [o.reason for o in found if o.action == "warned"] == ["NoMatchingParent"]
    wanted = replace(after, routes=routes)
    mirror.reconcile(wanted)
    assert mirror.reconcile(wanted) == []


def _actions(outcomes: list[Outcome]) -> dict[str, str]:
    return {o.address.collection: o.action for o in outcomes}


def _gateway(admin: EpicClient) -> dict[str, Any]:
    (proxy,) = admin.get(f"{ACCOUNT}/proxies")["items"]
    return dict(proxy)


def _clusters(admin: EpicClient) -> list[str]:
    return [member["clusterID"] for member in _gateway(admin)["status"].get("members", [])]


def test_two_clusters_have_one_gateway_and_each_leaves_with_its_own(
    admin: EpicClient, live_api: Any, tmp_path: Path, wish: Desire
) -> None:
    one, two = _mirror(tmp_path, "one"), _mirror(tmp_path, "two")
    made = {"members": "created", "routes": "created", "slices": "created"}
    assert _actions(one.reconcile(wish("one"))) == made
    assert _actions(two.reconcile(wish("two"))) == made
    assert (_gateway(admin)["metadata"]["name"], _clusters(admin)) == ("web", ["one", "two"])
    assert {route.spec.http.parent_refs[0].name for route in live_api.store.list(GWRoute)} == {"web"}
    gone = {"members": "deleted", "routes": "deleted", "slices": "deleted"}
    assert _actions(one.reconcile(Desired())) == gone
    assert (_clusters(admin), live_api.store.list(GWProxy)[0].deleting) == (["two"], False)
    # All that is the other's is as it was.
    two.expire()
    assert two.reconcile(wish("two")) == []
    left = [obj for kind in (GWRoute, GWEndpointSlice) for obj in live_api.store.list(kind)]
    assert {obj.spec.client_ref.cluster_id for obj in left} == {"two"}
    assert _actions(two.reconcile(Desired())) == gone
    assert live_api.store.list(GWProxy)[0].deleting
    assert live_api.store.list(GWMember) == []


def test_a_second_pass_writes_nothing(admin: EpicClient, live_api: Any, tmp_path: Path, wish: Desire) -> None:
    one, two = _mirror(tmp_path, "one"), _mirror(tmp_path, "two")
    one.reconcile(wish("one"))
    two.reconcile(wish("two"))
    revision = live_api.store.revision
    for mirror, cluster in ((one, "one"), (two, "two")):
        mirror.expire()
        assert mirror.reconcile(wish(cluster)) == []
    assert live_api.store.revision == revision


def test_a_cluster_that_asks_for_other_listeners_is_told_and_nothing_flips(
    admin: EpicClient, live_api: Any, tmp_path: Path, wish: Desire
) -> None:
    one, two = _mirror(tmp_path, "one"), _mirror(tmp_path, "two")
    one.reconcile(wish("one"))
    two.reconcile(wish("two", port=8080))
    revision = live_api.store.revision
    for _ in range(2):
        two.expire()
        (told,) = two.reconcile(wish("two", port=8080))
        assert (told.object, told.action, told.reason) == ("Gateway shop/web", "warned", "ListenersDiffer")
        assert told.message.startswith("Gateway shop/web of cluster one asks for other listeners")
        one.expire()
        assert one.reconcile(wish("one")) == []
    assert live_api.store.revision == revision
    assert _gateway(admin)["spec"]["public-ports"][0]["port"] == 80
    # It is over when the first has left, though nothing of the second has changed.
    one.reconcile(Desired())
    two.expire()
    assert two.reconcile(wish("two", port=8080)) == []
    assert _gateway(admin)["spec"]["public-ports"][0]["port"] == 8080


def test_hosts_of_one_cluster_are_one_member(admin: EpicClient, tmp_path: Path, wish: Desire) -> None:
    one, two = _mirror(tmp_path, "one", "node1"), _mirror(tmp_path, "one", "node2")
    one.reconcile(wish("one"))
    two.reconcile(wish("one"))
    assert _clusters(admin) == ["one"]
    assert _actions(one.reconcile(Desired()))["members"] == "left"
    assert _clusters(admin) == ["one"]
    two.expire()
    two.reconcile(wish("one"))
    assert _actions(two.reconcile(Desired()))["members"] == "deleted"
    assert "deletionTimestamp" in _gateway(admin)["metadata"]


def test_who_made_the_gateway_alone_and_shares_it_now_lets_nobody_lose_it(
    admin: EpicClient, live_api: Any, tmp_path: Path, wish: Desire
) -> None:
    """As where the first Gateway's UID is what the others share it by."""
    one = _mirror(tmp_path, "one")
    alone = wish("one", key="")
    one.reconcile(alone)
    uid = alone.proxies[0].uid
    one.reconcile(wish("one", key=uid))
    _mirror(tmp_path, "two").reconcile(wish("two", key=uid))
    (proxy,) = live_api.store.list(GWProxy)
    assert (proxy.name, proxy.deleting, _clusters(admin)) == (uid, False, ["one", "two"])
    one.reconcile(Desired())
    assert (live_api.store.list(GWProxy)[0].deleting, _clusters(admin)) == (False, ["two"])


def test_who_shares_its_gateway_after_others_joined_it_lets_nobody_lose_it(
    admin: EpicClient, live_api: Any, tmp_path: Path, wish: Desire
) -> None:
    """A join does not write the gateway: what was listed of it before has its version still."""
    one = _mirror(tmp_path, "one")
    alone = wish("one", key="")
    uid = alone.proxies[0].uid
    one.reconcile(alone)
    _mirror(tmp_path, "two").reconcile(wish("two", key=uid))
    one.expire()
    one.reconcile(alone)
    outcomes = one.reconcile(wish("one", key=uid))
    assert _actions(outcomes)["proxies"] == "left"
    (proxy,) = live_api.store.list(GWProxy)
    assert (proxy.name, proxy.deleting, _clusters(admin)) == (uid, False, ["two", "one"])


def test_who_else_shares_a_gateway_is_seen_at_each_listing(
    admin: EpicClient, tmp_path: Path, wish: Desire
) -> None:
    one = _mirror(tmp_path, "one")
    alone = wish("one", key="")
    address = alone.proxies[0].address
    one.reconcile(alone)
    joining = wish("two", key=address.uid).proxies[0]

    def listed() -> tuple[str, list[str]]:
        one.expire()
        one.reconcile(alone)
        seen = one.observed.find(address)
        assert seen is not None
        return seen.version, [cluster for cluster, _, _ in seen.members]

    version, nobody = listed()
    assert nobody == []
    admin.create(joining.create_path, joining.body)
    # The gateway itself is as it was.
    assert listed() == (version, ["two"])
    admin.delete(joining.address.path)
    assert listed() == (version, [])


def test_a_template_that_is_not_shared_keeps_a_second_cluster_out(
    admin: EpicClient, tmp_path: Path, wish: Desire
) -> None:
    one, two = _mirror(tmp_path, "one"), _mirror(tmp_path, "two")
    admin.put(f"{ACCOUNT}/groups/http", {"group": {"spec": {"service-prefix": "default"}}})
    one.reconcile(wish("one"))
    (refused,) = [o for o in two.reconcile(wish("two")) if o.address.collection == "members"]
    assert (refused.action, refused.reason) == ("failed", "Forbidden")
    assert "ask the platform's administrators for can-be-shared" in refused.message
    assert _clusters(admin) == ["one"]


def _parents(live_api: Any) -> set[str]:
    return {route.spec.http.parent_refs[0].name for route in live_api.store.list(GWRoute)}


def _kept(admin: EpicClient) -> tuple[str, bool]:
    found = {proxy["metadata"]["name"]: proxy for proxy in admin.get(f"{ACCOUNT}/proxies")["items"]}
    (own,) = [proxy for name, proxy in found.items() if name != "web"]
    return own["metadata"]["name"], "deletionTimestamp" in own["metadata"]


def test_a_sharing_key_that_is_refused_costs_a_client_neither_its_gateway_nor_its_routes(
    admin: EpicClient, live_api: Any, tmp_path: Path, wish: Desire
) -> None:
    one, two = _mirror(tmp_path, "one"), _mirror(tmp_path, "two")
    two.reconcile(wish("two", called="other"))
    alone = wish("one", key="")
    uid = alone.proxies[0].uid
    one.reconcile(alone)
    admin.put(f"{ACCOUNT}/groups/http", {"group": {"spec": {"service-prefix": "default"}}})
    asked = wish("one")
    for _ in range(2):
        one.expire()
        (refused,) = one.reconcile(asked)
        assert (refused.action, refused.reason) == ("failed", "Forbidden")
        assert _kept(admin) == (uid, False)
        assert _parents(live_api) == {"web", uid}
    # A change of a route is served where it is.
    (route,) = asked.routes
    changed = {**route.spec, "http": {**route.spec["http"], "hostnames": ["new.example.net"]}}
    outcomes = one.reconcile(replace(asked, routes=(replace(route, spec=changed),)))
    assert _actions(outcomes)["routes"] == "configured"
    assert _parents(live_api) == {"web", uid}
    # It is over when the template lets it in, though nothing has changed here.
    group = {"group": {"spec": {"service-prefix": "default", "can-be-shared": True}}}
    admin.put(f"{ACCOUNT}/groups/http", group)
    assert _actions(one.reconcile(asked)) == {
        "members": "created",
        "routes": "configured",
        "proxies": "deleted",
    }
    assert (_kept(admin), _parents(live_api)) == ((uid, True), {"web"})


def test_a_cluster_that_is_kept_out_has_no_routes_at_the_others_gateway(
    admin: EpicClient, live_api: Any, tmp_path: Path, wish: Desire
) -> None:
    one, two = _mirror(tmp_path, "one"), _mirror(tmp_path, "two")
    admin.put(f"{ACCOUNT}/groups/http", {"group": {"spec": {"service-prefix": "default"}}})
    one.reconcile(wish("one"))
    outcomes = two.reconcile(wish("two"))
    assert [(o.address.collection, o.reason) for o in outcomes if o.action == "failed"] == [
        ("members", "Forbidden"),
        ("routes", "Pending"),
    ]
    (route,) = live_api.store.list(GWRoute)
    assert route.spec.client_ref.cluster_id == "one"


def test_a_member_that_another_gateway_refuses_stays_in_its_own_with_its_routes(
    admin: EpicClient, live_api: Any, tmp_path: Path, wish: Desire
) -> None:
    one, two = _mirror(tmp_path, "one"), _mirror(tmp_path, "two")
    two.reconcile(wish("two", called="other"))
    one.reconcile(wish("one", key="own"))
    admin.put(f"{ACCOUNT}/groups/http", {"group": {"spec": {"service-prefix": "default"}}})
    (refused,) = one.reconcile(wish("one"))
    assert (refused.action, refused.reason) == ("failed", "Forbidden")
    assert (_kept(admin), _parents(live_api)) == (("own", False), {"web", "own"})


@pytest.mark.parametrize(("before", "after"), [("", "team"), ("team", "")])
def test_a_gateway_that_nobody_shares_goes_where_its_name_is_to_be_the_new_ones(
    admin: EpicClient, live_api: Any, tmp_path: Path, wish: Desire, before: str, after: str
) -> None:
    one = _mirror(tmp_path, "one")
    one.reconcile(wish("one", key=before))
    old = _gateway(admin)["metadata"]["name"]
    # Who shares it is listed each half minute.
    one.expire()
    asked = wish("one", key=after)
    first = one.reconcile(asked)
    assert [o.reason for o in first if o.action == "failed"] == ["NameTaken"]
    assert one.reconcile(asked)[0].action == "created"
    found = {proxy.name: proxy.deleting for proxy in live_api.store.list(GWProxy)}
    assert (found.pop(old), list(found.values())) == (True, [False])
    assert _parents(live_api) == set(found)


def test_a_gateway_that_others_share_stays_where_its_name_is_to_be_the_new_ones(
    admin: EpicClient, live_api: Any, tmp_path: Path, wish: Desire
) -> None:
    one, two = _mirror(tmp_path, "one"), _mirror(tmp_path, "two")
    one.reconcile(wish("one"))
    two.reconcile(wish("two"))
    (refused,) = one.reconcile(wish("one", key=""))
    assert (refused.action, refused.reason) == ("failed", "NameTaken")
    assert (_clusters(admin), _parents(live_api)) == (["one", "two"], {"web"})


def test_what_another_account_refuses_stays_whole_where_it_was(
    admin: EpicClient, live_api: Any, tmp_path: Path, wish: Desire
) -> None:
    admin.post("/api/epic/accounts", {"account": {"metadata": {"name": "bank"}, "spec": {}}})
    admin.post("/api/epic/accounts/bank/users", {"user": {"name": "bank", "password": "bank-password"}})
    one = _mirror(tmp_path, "one")
    asked = wish("one", key="")
    one.reconcile(asked)
    bank = EpicConnection(live_api.url, "bank", "bank", "bank-password", "one")
    moved = {
        name: tuple(replace(item, connection=bank) for item in getattr(asked, name))
        for name in ("proxies", "slices", "routes")
    }
    outcomes = one.reconcile(replace(asked, connections=(bank,), **moved))
    # There is no such template there.
    assert [(o.address.collection, o.action, o.reason) for o in outcomes] == [
        ("proxies", "failed", "NotFound"),
        ("slices", "created", ""),
        ("routes", "failed", "Pending"),
    ]
    left = {
        kind: [obj.account for obj in live_api.store.list(kind)]
        for kind in (GWProxy, GWRoute, GWEndpointSlice)
    }
    assert left == {GWProxy: ["shop"], GWRoute: ["shop"], GWEndpointSlice: ["bank", "shop"]}
