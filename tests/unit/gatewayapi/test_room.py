# SPDX-License-Identifier: Apache-2.0
"""Routes that a gateway has no room for are left out, the youngest, and stop nobody else's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from epic.envoy.builders.routes import RoutePieces, encode_route
from epic.gatewayapi import virtual_hosts
from epic.gatewayapi.attached import room
from epic.gatewayapi.attached.needs import need_of
from epic.gatewayapi.attached.room import surely_fit
from epic.gatewayapi.attached.routes import left_out
from epic.gatewayapi.attached.sizes import host_size
from epic.gatewayapi.listeners import judge, specified
from epic.gatewayapi.routing import HTTPRoute, Routing
from epic.gatewayapi.translate import translate
from epic.model.members import GWMember
from epic.model.resources import GWProxy, GWRoute

START = datetime(2026, 1, 1, tzinfo=UTC)
SERVICES = ("s1", "s2", "s3")
LISTENERS = ((80, None), (80, "*.example.com"), (80, "a.example.com"), (8080, None))


def proxy(*listeners: tuple[int, str | None], namespace: str = "") -> GWProxy:
    wanted = [
        {"name": f"l{i}", "port": port, "protocol": "HTTP", "hostname": hostname}
        for i, (port, hostname) in enumerate(listeners or ((80, None),))
    ]
    spec = {
        "clientRef": {"clusterID": "c1", "namespace": namespace},
        "public-address": "203.0.113.1",
        "gateway": {"gatewayClassName": "epic", "listeners": wanted},
    }
    return GWProxy.model_validate({"metadata": {"name": "U1", "namespace": "root"}, "spec": spec})


def route(
    number: int,
    *backends: dict[str, Any],
    hostnames: Iterable[str] = (),
    paths: Iterable[str] = ("/",),
    section: str | None = None,
    cluster: str = "c1",
    namespace: str = "",
) -> GWRoute:
    """One that is younger than those of lower numbers."""
    rule = {"matches": [{"path": {"value": path}} for path in paths], "backendRefs": backends}
    http = {
        "parentRefs": [{"name": "U1", "sectionName": section}],
        "hostnames": list(hostnames),
        "rules": [rule],
    }
    created = START + timedelta(seconds=number)
    ref = {"clusterID": cluster, "namespace": namespace, "creationTimestamp": created}
    spec = {"clientRef": ref, "http": http}
    return GWRoute.model_validate({"metadata": {"name": f"r{number}", "namespace": "root"}, "spec": spec})


@contextmanager
def limits(**values: int) -> Iterator[None]:
    with patch.multiple(room, **values):
        yield


def paths_of(routing: Routing, hostname: str = "*") -> list[str]:
    hosts = {host.hostname: host for port in routing.ports for host in port.virtual_hosts}
    return [each.path for each in hosts[hostname].routes]


NAMES = st.sampled_from(
    ["a.example.com", "b.example.com", "*.example.com", "*.b.example.com", "x.b.example.com"]
)
BACKENDS = st.builds(
    lambda name, port, weight: {"name": name, "port": port, "weight": weight},
    st.sampled_from([*SERVICES, "missing"]),
    st.integers(80, 82),
    st.integers(0, 200),
)
PARTS = st.tuples(
    st.lists(BACKENDS, max_size=2),
    st.lists(NAMES, max_size=3),
    st.lists(st.sampled_from(["/", "/a", "/a/long/way"]), max_size=3, unique=True),
    st.sampled_from([None, None, "l0", "l1", "l3"]),
)
ROUTES = st.lists(PARTS, max_size=8).map(
    lambda found: [
        route(n, *backends, hostnames=names, paths=paths, section=section)
        for n, (backends, names, paths, section) in enumerate(found)
    ]
)
LIMITS = st.fixed_dictionaries(
    {
        "MOST_ENTRIES": st.sampled_from([8, 20, 60]),
        "LARGEST": st.sampled_from([500, 1500, 4000]),
        "MOST_PORTS_OF_SERVICE": st.sampled_from([1, 2, 3]),
        "MOST_CLUSTERS": st.sampled_from([2, 4, 12]),
    }
)


def fits(gateway: GWProxy, routes: Sequence[GWRoute], values: dict[str, int]) -> bool:
    """Whether it fits, found by building all of it as if no Service existed."""
    routing = translate(gateway, routes, ()).routing
    hosts = [(port.number, host) for port in routing.ports for host in port.virtual_hosts]
    sizes = Counter[int]()
    for number, host in hosts:
        sizes[number] += host_size(host.hostname) + sum(len(encode_route(r).encoded) for r in host.routes)
    entries = sum(1 + len(host.routes) for _, host in hosts)
    clusters = translate(gateway, routes, {*SERVICES, "missing"}).routing.clusters
    ports = Counter(cluster.service for cluster in clusters)
    return (
        entries <= values["MOST_ENTRIES"]
        and max(sizes.values()) <= values["LARGEST"]
        and len(clusters) <= values["MOST_CLUSTERS"]
        and max(ports.values(), default=0) <= values["MOST_PORTS_OF_SERVICE"]
    )


@given(ROUTES, LIMITS)
def test_the_older_are_served_and_of_the_younger_each_that_fits_beside_them(
    routes: list[GWRoute], values: dict[str, int]
) -> None:
    gateway, taken, refused = proxy(*LISTENERS), list[GWRoute](), set[str]()
    for each in routes:
        if not each.spec.http or fits(gateway, [*taken, each], values) or not attaches(gateway, each):
            taken.append(each)
        else:
            refused.add(each.name)
    with limits(**values):
        assert set(left_out(gateway, routes, ())) == refused


def attaches(gateway: GWProxy, each: GWRoute) -> bool:
    return any(status.accepted for status in translate(gateway, [each], ()).parents)


@given(ROUTES)
def test_what_fits_at_a_glance_is_not_less_than_what_there_is(routes: list[GWRoute]) -> None:
    gateway, values = proxy(*LISTENERS), {"MOST_CLUSTERS": 9, "MOST_PORTS_OF_SERVICE": 3}
    served = judge(specified(gateway.spec))[0]
    for entries, size in ((8, 500), (20, 1500), (60, 4000), (200, 12_000)):
        with limits(**values, MOST_ENTRIES=entries, LARGEST=size):
            if surely_fit(served, map(need_of, routes)):
                assert fits(gateway, routes, {**values, "MOST_ENTRIES": entries, "LARGEST": size})


@given(ROUTES, PARTS, LIMITS)
def test_a_younger_route_takes_no_older_one_s_place(
    routes: list[GWRoute], youngest: tuple[Any, ...], values: dict[str, int]
) -> None:
    backends, names, paths, section = youngest
    added = route(99, *backends, hostnames=names, paths=paths, section=section)
    gateway = proxy(*LISTENERS)
    with limits(**values):
        before = left_out(gateway, routes, ())
        after = left_out(gateway, [added, *routes], ())
    assert {name: why for name, why in after.items() if name != added.name} == before


@given(ROUTES, st.sets(st.sampled_from(SERVICES)), st.sampled_from([500, 1500, 4000]))
def test_what_is_served_is_never_larger_than_it_may_be(
    routes: list[GWRoute], services: set[str], largest: int
) -> None:
    with limits(LARGEST=largest):
        routing = translate(proxy(*LISTENERS), routes, services).routing
    built, _ = RoutePieces().build(routing.ports)
    heads = 64
    assert all(len(found.SerializeToString()) <= largest + heads for found in built.values())


@given(ROUTES, st.sets(st.sampled_from(SERVICES)), LIMITS)
def test_services_that_come_and_go_change_nothing_of_what_fits(
    routes: list[GWRoute], services: set[str], values: dict[str, int]
) -> None:
    with limits(**values):
        found = [translate(proxy(*LISTENERS), routes, known) for known in (services, set(SERVICES))]
    assert found[0].left_out == found[1].left_out
    assert [s.accepted for s in found[0].parents] == [s.accepted for s in found[1].parents]


def test_one_clusters_huge_route_does_not_stop_anothers_small_change() -> None:
    huge = route(0, paths=[f"/{n}/{'x' * 1000}" for n in range(64)], cluster="a")
    with limits(LARGEST=50_000):
        for path in ("/before", "/after"):
            small = route(1, paths=[path], cluster="b")
            found = translate(proxy(), [huge, small], ())
            assert paths_of(found.routing) == [path]
            assert found.left_out == 1
            ((why,), (served,)) = ([s for s in found.parents if s.route == name] for name in ("r0", "r1"))
            assert served.accepted
            assert (why.accepted, why.reason) == (False, "UnsupportedValue")
            assert why.message.startswith(
                "The gateway has no room for it: with it the virtual hosts of port 80 would have "
            )
            assert "at most 50000 are possible: use fewer hostnames or matches" in why.message


def test_what_was_left_out_comes_back_when_there_is_room() -> None:
    older, younger = (route(n, paths=[f"/{n}/{'x' * 600}"]) for n in range(2))
    with limits(LARGEST=1000):
        assert list(left_out(proxy(), [older, younger], ())) == ["r1"]
        assert not left_out(proxy(), [younger], ())


def test_a_route_takes_room_once_its_clusters_gateway_shares_the_gateway() -> None:
    older = route(0, paths=[f"/0/{'x' * 600}"], cluster="c2", namespace="bank")
    younger = route(1, paths=[f"/1/{'x' * 600}"], namespace="shop")
    spec = {"sharing-key": "U1", "clientRef": {"clusterID": "c2", "namespace": "bank"}}
    member = GWMember.model_validate({"metadata": {"name": "M2", "namespace": "root"}, "spec": spec})
    for members, served, refused in (((), "r1", set()), ((member,), "r0", {"r1"})):
        with limits(LARGEST=1000):
            found = translate(proxy(namespace="shop"), [older, younger], (), members=members)
            assert [status.route for status in found.parents if status.accepted] == [served]
            assert set(left_out(proxy(namespace="shop"), [older, younger], members)) == refused
            assert found.left_out == len(refused)


def test_hostnames_times_matches_are_left_out_before_they_are_built() -> None:
    wide = [route(n, paths=[f"/{n}/{i}" for i in range(64)]) for n in range(20)]
    named = [route(n, hostnames=[f"h{n}-{i}.example.com" for i in range(16)]) for n in range(20, 30)]
    with limits(LARGEST=1 << 30), patch.object(virtual_hosts, "HTTPRoute", wraps=HTTPRoute) as build:
        found = translate(proxy(), [*wide, *named], ())
    assert build.call_count == 20 * 64 + 4
    assert found.left_out == 6
    refused = [status.message for status in found.parents if not status.accepted]
    assert len(refused) == 6
    assert all("at most 100000 are possible" in message for message in refused)


def test_what_does_not_fit_is_not_looked_at_for_ever() -> None:
    many = [
        route(n, hostnames=[f"h{n}-{i}.example.com" for i in range(16)], paths=[f"/{i}" for i in range(64)])
        for n in range(10)
    ]
    with (
        limits(MOST_ENTRIES=40, MOST_LOOKED_AT=120, SMALL=10),
        patch.object(room, "host_size", wraps=host_size) as sized,
    ):
        found = left_out(proxy(), many, ())
    assert len(found) == 10
    assert found["r9"].startswith("it and older routes have so many hostnames that it is not looked at")
    assert sized.call_count <= 3 + 3 * 16


def test_a_service_has_only_so_many_ports() -> None:
    routes = [route(n, {"name": "s1", "port": 80 + n}) for n in range(33)]
    found = translate(proxy(), routes, {"s1"})
    assert len(found.routing.clusters) == 32
    assert left_out(proxy(), routes, ()) == {
        "r32": "with it the gateway's routes would name 33 ports of Service 's1'; at most 32 are possible"
    }
    known = route(33, {"name": "s1", "port": 80})
    assert list(left_out(proxy(), [*routes, known], ())) == ["r32"]


def test_a_gateway_has_only_so_many_ports_of_services() -> None:
    routes = [route(n, {"name": f"s{n}", "port": 80}) for n in range(4)]
    with limits(MOST_CLUSTERS=3):
        assert left_out(proxy(), routes, ()) == {
            "r3": "with it the gateway's routes would name 4 ports of Services in all; at most 3 are possible"
        }
        assert len(translate(proxy(), routes, {f"s{n}" for n in range(4)}).routing.clusters) == 3


def test_a_route_counts_once_for_a_hostname_that_another_one_of_its_covers() -> None:
    """Three virtual hosts with the listener's own, of which two have both routes' matches, 2 and 1."""
    names = ["*.example.com", "a.example.com"]
    routes = [route(0, hostnames=names, paths=["/", "/b"]), route(1, hostnames=names)]
    for most, refused in ((9, []), (8, ["r1"]), (6, ["r0"])):
        with limits(MOST_ENTRIES=most):
            assert list(left_out(proxy(), routes, ())) == refused


def test_thousands_of_routes_fit() -> None:
    routes = [route(n, {"name": f"s{n}", "port": 80}, paths=[f"/{n}"]) for n in range(3000)]
    assert not left_out(proxy(), routes, ())


def test_large_routes_do_not_keep_small_ones_from_being_looked_at() -> None:
    names = [f"{n}.{'x.' * 20}example.com" for n in range(4)]
    large = [route(n, hostnames=names, paths=["/" + "p" * 900]) for n in range(8)]
    small = route(9, hostnames=["a.example.com"])
    with limits(LARGEST=4000, MOST_LOOKED_AT=200, SMALL=8):
        found = left_out(proxy(), [*large, small], ())
    assert "r9" not in found
    assert "it is not looked at" in found["r7"]
    assert "would have" in found["r1"]


def test_routes_on_many_ports_are_seen_to_fit_at_a_glance() -> None:
    gateway = proxy(*((port, None) for port in range(8000, 8040)))
    served, _ = judge(specified(gateway.spec))
    routes = [route(n, hostnames=[f"a{n}.example.com"], section=f"l{n % 40}") for n in range(400)]
    assert surely_fit(served, map(need_of, routes))
