# SPDX-License-Identifier: Apache-2.0
"""Properties of translation that single cases do not show; the cases are in tests/golden."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epic.gatewayapi import attachment, virtual_hosts
from epic.gatewayapi.attached import routes as attached
from epic.gatewayapi.routing import HTTPRoute, VirtualHost
from epic.gatewayapi.translate import translate
from epic.model.resources import GWProxy, GWRoute

START = datetime(2026, 1, 1, tzinfo=UTC)

PATHS = st.sampled_from(["/", "/a", "/a/b", "/a/bc", "/b/"])
MATCHES = st.builds(
    lambda exact, path, headers: {
        "path": {"type": "Exact" if exact else "PathPrefix", "value": path},
        "headers": [{"name": name, "value": "v"} for name in headers],
    },
    st.booleans(),
    PATHS,
    st.sets(st.sampled_from(["x", "y", "Z"])),
)
RULES = st.builds(
    lambda matches, name: {"matches": matches, "backendRefs": [{"name": name, "port": 80}]},
    st.lists(MATCHES, min_size=1, max_size=3),
    st.sampled_from(["s1", "s2", "missing"]),
)
HOSTNAMES = st.lists(st.sampled_from(["a.example.com", "*.example.com", "b.org"]), max_size=2)


def proxy(*hostnames: str | None) -> GWProxy:
    listeners = [
        {"name": f"l{i}", "port": 80, "protocol": "HTTP", "hostname": hostname}
        for i, hostname in enumerate(hostnames or (None,))
    ]
    spec = {"public-address": "203.0.113.1", "gateway": {"gatewayClassName": "epic", "listeners": listeners}}
    return GWProxy.model_validate({"metadata": {"name": "U1", "namespace": "root"}, "spec": spec})


def route(name: str, age: int, hostnames: list[str], rules: list[dict[str, object]]) -> GWRoute:
    created = START - timedelta(seconds=age)
    http = {"parentRefs": [{"name": "U1"}], "hostnames": hostnames, "rules": rules}
    metadata = {"name": name, "namespace": "root", "creationTimestamp": created}
    return GWRoute.model_validate({"metadata": metadata, "spec": {"http": http}})


ROUTES = st.lists(
    st.tuples(st.integers(0, 2), HOSTNAMES, st.lists(RULES, min_size=1, max_size=3)), max_size=4
).map(lambda found: [route(f"r{i}", *parts) for i, parts in enumerate(found)])


def hosts(proxy: GWProxy, routes: list[GWRoute]) -> dict[str, VirtualHost]:
    ports = translate(proxy, routes, {"s1", "s2"}).routing.ports
    return {host.hostname: host for host in ports[0].virtual_hosts}


def matches(route: HTTPRoute, path: str, headers: set[str]) -> bool:
    prefix = route.path.rstrip("/")
    on_path = (
        path == route.path if route.path_type == "Exact" else path == prefix or path.startswith(f"{prefix}/")
    )
    return on_path and {header.name for header in route.headers} <= headers


@given(ROUTES, st.randoms())
def test_the_order_of_routes_in_the_store_does_not_matter(routes: list[GWRoute], random: object) -> None:
    shuffled = list(routes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (
        translate(proxy(None, "*.example.com"), found, {"s1", "s2"}) for found in (routes, shuffled)
    )
    assert one == other


@given(
    ROUTES,
    st.sampled_from(["/", "/a", "/a/", "/a/b", "/a/b/c", "/b", "/b/"]),
    st.sets(st.sampled_from("xyz")),
)
def test_the_first_match_is_the_best(routes: list[GWRoute], path: str, headers: set[str]) -> None:
    host = hosts(proxy(), routes).get("*")
    assert host is not None
    found = [r for r in host.routes if matches(r, path, headers)]
    ranks = [
        (r.path_type != "Exact", -len(r.path) * (r.path_type != "Exact"), -len(r.headers)) for r in found
    ]
    assert ranks == sorted(ranks)


@given(ROUTES)
def test_every_hostname_of_a_listener_has_one_virtual_host(routes: list[GWRoute]) -> None:
    gateway = proxy(None, "*.example.com", "a.example.com")
    names = [
        host.hostname
        for port in translate(gateway, routes, {"s1"}).routing.ports
        for host in port.virtual_hosts
    ]
    assert len(names) == len(set(names))
    assert {"*", "*.example.com", "a.example.com"} <= set(names)


def test_a_rule_without_matches_given_matches_everything() -> None:
    found = hosts(proxy(), [route("r", 0, [], [{"backendRefs": [{"name": "s1"}]}])])
    assert [(r.path_type, r.path) for r in found["*"].routes] == [("PathPrefix", "/")]


def test_an_empty_list_of_matches_is_as_none_given() -> None:
    rules = [{"matches": [], "backendRefs": [{"name": "s1"}]}]
    found = hosts(proxy(), [route("r", 0, [], rules)])
    assert [(r.path_type, r.path) for r in found["*"].routes] == [("PathPrefix", "/")]


def test_hostnames_cost_what_they_are_and_not_each_times_each(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    known = attachment.intersection

    def counted(one: str, other: str) -> str | None:
        nonlocal asked
        asked += 1
        return known(one, other)

    monkeypatch.setattr(attachment, "intersection", counted)
    many = [route(f"r{n}", 0, [f"h{n}.example.com"], [{"backendRefs": [{"name": "s1"}]}]) for n in range(200)]
    assert len(hosts(proxy(), many)) == 201
    assert asked <= 3 * len(many)


def test_a_gateway_without_address_cannot_be_translated() -> None:
    gateway = proxy()
    bare = gateway.model_copy(update={"spec": gateway.spec.model_copy(update={"public_address": None})})
    with pytest.raises(ValueError, match=r"root\.U1 has no public address"):
        translate(bare, [], set())


def test_a_match_is_built_once_however_many_listeners_and_hostnames_it_is_for() -> None:
    names = [f"h{n}.example.com" for n in range(8)]
    gateway = proxy(None, "*.example.com", "*.org")
    routes = [route("r", 0, [*names, "a.org"], [{"backendRefs": [{"name": "s1"}]}])]
    with patch.object(virtual_hosts, "HTTPRoute", wraps=HTTPRoute) as build:
        assert sum(len(host.routes) for host in hosts(gateway, routes).values()) == 9
    build.assert_called_once()


def test_a_route_is_looked_at_once_however_many_references_it_has() -> None:
    found = route("r", 0, [], [{"backendRefs": [{"name": "s1"}]}])
    http = found.spec.http
    assert http is not None
    many = http.model_copy(update={"parent_refs": http.parent_refs * 32})
    found = found.model_copy(update={"spec": found.spec.model_copy(update={"http": many})})
    with patch.object(attached, "unsupported", return_value=None) as looked:
        assert len(translate(proxy(), [found], {"s1"}).parents) == 32
    looked.assert_called_once()
