# SPDX-License-Identifier: Apache-2.0
"""What the code builds: the same for the same meaning, literal whatever tenants write, each piece once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epic.envoy.builders import routes as builder
from epic.envoy.builders.routes import RoutePieces, build_route, encode_host, encode_route
from epic.errors import Invalid
from epic.gatewayapi.attached.sizes import LARGEST, action_size, host_size, match_size
from epic.gatewayapi.routing import Header, HTTPRoute, Port, VirtualHost, WeightedCluster

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8)
HEADERS = st.lists(st.builds(Header, NAMES, TEXTS), max_size=3).map(tuple)
SHARES = st.lists(st.builds(WeightedCluster, TEXTS, st.integers(1, 1_000_000)), max_size=3).map(tuple)
PATHS = TEXTS.map(lambda text: "/" + text.translate(str.maketrans("?#/", "___")))
KINDS = st.sampled_from(["Exact", "PathPrefix"])
ROUTES = st.lists(st.builds(HTTPRoute, TEXTS, KINDS, PATHS, HEADERS, SHARES), max_size=3).map(tuple)
HOSTS = st.lists(st.builds(VirtualHost, NAMES, ROUTES), max_size=3, unique_by=lambda host: host.hostname)
PORTS = HOSTS.map(lambda hosts: (Port(80, "HTTP", virtual_hosts=tuple(hosts)), Port(81, "TCP")))

HOSTILE = ["{{ 7 * 7 }}", "%REQ(:path)%", "\"'`", "a\r\nb: c", "\u2028\u2029\ufeff", "v" * 65536, "%", "\x00"]


def route(number: int = 0, **fields: Any) -> HTTPRoute:
    made = {"path_type": "Exact", "path": f"/{number}", "headers": (), "backends": ()}
    return HTTPRoute(name=f"shop/r/rule/0/match/{number}", **made | fields)


def port(*routes: HTTPRoute, hostname: str = "*") -> Port:
    return Port(80, "HTTP", virtual_hosts=(VirtualHost(hostname, routes),))


def encoded(pieces: RoutePieces, ports: tuple[Port, ...]) -> dict[str, bytes]:
    found, _ = pieces.build(ports)
    return {name: message.SerializeToString(deterministic=True) for name, message in found.items()}


@given(st.lists(PORTS, max_size=4))
def test_what_was_built_before_makes_no_difference(turns: list[tuple[Port, ...]]) -> None:
    pieces = RoutePieces()
    for ports in turns:
        assert encoded(pieces, ports) == encoded(RoutePieces(), ports)
        assert pieces.build(ports)[1] == RoutePieces().build(ports)[1]


@given(PORTS)
def test_every_route_is_there_in_its_order(ports: tuple[Port, ...]) -> None:
    (found,) = RoutePieces().build(ports)[0].values()
    assert [list(host.routes) for host in found.virtual_hosts] == [
        [build_route(each) for each in host.routes] for host in ports[0].virtual_hosts
    ]


@given(ROUTES)
def test_how_large_a_route_becomes_is_known_before(routes: tuple[HTTPRoute, ...]) -> None:
    for each in routes:
        reckoned = match_size(each.name, each.path, each.headers, action_size(each.backends))
        assert reckoned == len(encode_route(each).encoded)


@given(HOSTS)
def test_a_virtual_host_is_not_larger_than_was_known_before(hosts: list[VirtualHost]) -> None:
    for host in hosts:
        routes = [encode_route(each) for each in host.routes]
        known = host_size(host.hostname) + sum(len(each.encoded) for each in routes)
        assert known - 2 <= len(encode_host(host, routes).encoded) <= known


def test_a_change_builds_the_changed_route_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    def noted(found: HTTPRoute) -> Any:
        built.append(found.path)
        return encode_route(found)

    monkeypatch.setattr(builder, "encode_route", noted)
    routes, pieces = [route(number) for number in range(5)], RoutePieces()
    pieces.build([port(*routes)])
    assert built == ["/0", "/1", "/2", "/3", "/4"]
    built.clear()
    pieces.build([port(*routes)])
    assert built == []
    routes[2] = replace(routes[2], path="/other")
    pieces.build([port(*routes)])
    assert built == ["/other"]


def test_a_route_for_many_hostnames_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    def noted(found: HTTPRoute) -> Any:
        built.append(found.path)
        return encode_route(found)

    monkeypatch.setattr(builder, "encode_route", noted)
    hosts = tuple(VirtualHost(f"h{number}", (route(),)) for number in range(9))
    RoutePieces().build([Port(80, "HTTP", virtual_hosts=hosts)])
    assert built == ["/0"]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_arrives_literally(text: str) -> None:
    built = build_route(route(path=f"/{text}", headers=(Header("x", text),)))
    assert built.match.path == f"/{text}"
    assert built.match.headers[0].string_match.exact == text


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"headers": (Header("x", "\ud800"),)}, "Route 'shop/r/rule/0/match/0' has text that is no Unicode"),
        ({"headers": (Header("a\nb", "x"),)}, r"match/0': 'a\\nb' cannot be the name of a header"),
        ({"headers": (Header("", "x"),)}, "'' cannot be the name of a header"),
        ({"path_type": "PathPrefix", "path": "/a?b"}, "'/a\\?b' cannot be the prefix of a path"),
        ({"path_type": "PathPrefix", "path": "/a/"}, "'/a/' cannot be the prefix of a path"),
    ],
)
def test_what_envoy_would_refuse_is_refused_with_the_routes_name(fields: Any, fault: str) -> None:
    with pytest.raises(Invalid, match=fault):
        RoutePieces().build([port(route(**fields))])


def test_a_hostname_twice_is_refused() -> None:
    hosts = (VirtualHost("a.example", ()), VirtualHost("a.example", ()))
    with pytest.raises(Invalid, match=r"'a\.example' is there twice on port 80"):
        RoutePieces().build([Port(80, "HTTP", virtual_hosts=hosts)])


def test_more_than_fits_is_refused_and_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    large = Header("x", "v" * 4096)
    routes = [route(number, headers=(large,) * 16) for number in range(100)]
    number = LARGEST // len(encode_route(routes[0]).encoded)
    RoutePieces().build([port(*routes[: number - 1])])
    built: list[str] = []

    def noted(found: HTTPRoute) -> Any:
        built.append(found.path)
        return encode_route(found)

    monkeypatch.setattr(builder, "encode_route", noted)
    with pytest.raises(Invalid, match=f"The virtual hosts of a port have more than {LARGEST} bytes"):
        RoutePieces().build([port(*routes)])
    assert len(built) == number + 1
