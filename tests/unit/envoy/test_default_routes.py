# SPDX-License-Identifier: Apache-2.0
"""The default route configuration is what its template renders, whatever is in it, and as bounded."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st

from epic.envoy.default_routes import route_configuration
from epic.envoy.rendering import LARGEST, RenderError, _rendered, render
from epic.envoy.templating import tasks
from epic.gatewayapi.routing import Header, HTTPRoute, Port, Routing, VirtualHost, WeightedCluster
from epic.model.resources import EnvoyResources
from epic.model.values.naming import GatewayId

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
HEADERS = st.lists(st.builds(Header, TEXTS, TEXTS), max_size=3).map(tuple)
SHARES = st.lists(st.builds(WeightedCluster, TEXTS, st.integers(0, 1_000_000)), max_size=3).map(tuple)
PATHS = TEXTS.map(lambda text: f"/{text}")
KINDS = st.sampled_from(["Exact", "PathPrefix"])
ROUTES = st.lists(st.builds(HTTPRoute, TEXTS, KINDS, PATHS, HEADERS, SHARES), max_size=3).map(tuple)
HOSTS = st.lists(st.builds(VirtualHost, TEXTS, ROUTES), max_size=3).map(tuple)


def task_of(hosts: tuple[VirtualHost, ...]) -> Any:
    ports = (Port(80, "HTTP", virtual_hosts=hosts),)
    routing = Routing(GatewayId("shop", "gw"), "shop", IPv4Address("203.0.113.1"), ports, ())
    (task,) = (task for task in tasks(routing, EnvoyResources()) if task.kind == "route")
    return task


@given(HOSTS)
def test_it_is_what_the_template_renders(hosts: tuple[VirtualHost, ...]) -> None:
    task = task_of(hosts)
    rendered = render(task.template.value, task.variables)
    made, expected = (
        ParseDict(body, RouteConfiguration()) for body in (route_configuration(task.variables), rendered)
    )
    assert made == expected


def route(number: int, **fields: Any) -> HTTPRoute:
    given = {"path_type": "Exact", "path": f"/{number}", "headers": (), "backends": ()}
    return HTTPRoute(name=f"shop/r/rule/0/match/{number}", **given | fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"backends": (WeightedCluster("svc/s1/80", 1),) * 16},
        {"headers": (Header("x", "v" * 100),) * 16},
        {"path": "/" + "a" * 1000},
    ],
)
def test_it_is_refused_where_the_template_renders_too_much(fields: dict[str, Any]) -> None:
    def refused(count: int) -> bool:
        variables = task_of((VirtualHost("*", tuple(route(n, **fields) for n in range(count))),)).variables
        try:
            route_configuration(variables)
        except RenderError as error:
            assert str(error) == f"it renders more than {LARGEST} characters"
            return True
        return False

    text = render_length(fields)
    assert not refused(LARGEST // (text + text // 10))
    assert refused(LARGEST // (text - text // 10))


def render_length(fields: dict[str, Any]) -> int:
    """How long a route is in the template's text."""
    one, two = (task_of((VirtualHost("*", tuple(route(n, **fields) for n in range(k))),)) for k in (1, 2))
    return len(_rendered(two.template.value, two.variables)) - len(
        _rendered(one.template.value, one.variables)
    )


def test_a_route_that_is_for_many_hostnames_has_its_variables_once() -> None:
    found = route(1)
    variables = task_of((VirtualHost("a", (found,)), VirtualHost("b", (found,)))).variables
    first, second = (host["Routes"][0] for host in variables["VirtualHosts"])
    assert first is second
