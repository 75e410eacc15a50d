# SPDX-License-Identifier: Apache-2.0
"""Envoy is asked about what it was not shown before, and about what templates rendered."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from epic.envoy.judge import Judge, sample
from epic.envoy.resources import Bundle, build
from epic.errors import Invalid, Unavailable
from epic.gatewayapi.routing import Cluster, Header, HTTPRoute, Port, Routing, VirtualHost, WeightedCluster
from epic.model.resources import EnvoyResources
from epic.model.values.naming import GatewayId

SHARE = (WeightedCluster("svc/svc/80", 1),)


class Asked:
    """An Envoy that takes everything, or that does not."""

    def __init__(self) -> None:
        self.times = 0
        self.answer: Exception | None = None

    async def __call__(self, _: Bundle) -> None:
        self.times += 1
        if self.answer is not None:
            raise self.answer


def bundle(
    *routes: HTTPRoute, name: str = "U1", tcp: bool = False, templates: EnvoyResources | None = None
) -> Bundle:
    http = Port(80, "HTTP", virtual_hosts=(VirtualHost("*", routes),))
    ports = (http, Port(81, "TCP", backends=SHARE)) if tcp else (http,)
    addresses = (IPv4Address("203.0.113.1"),)
    routing = Routing(GatewayId("root", name), "", addresses, ports, (Cluster("svc", 80),))
    return build(routing, templates or EnvoyResources())


def route(path: str = "/", *headers: Header) -> HTTPRoute:
    return HTTPRoute(f"r{path}", "Exact", path, headers, SHARE)


async def test_a_change_of_text_is_not_asked_about() -> None:
    asked = Asked()
    judge = Judge(asked)
    await judge.judge(bundle(route("/a")))
    await judge.judge(bundle(route("/b"), route("/c")))
    await judge.judge(bundle(route("/a"), name="U2"))
    assert asked.times == 1


@pytest.mark.parametrize("other", [bundle(route("/a", Header("x", "y"))), bundle(route("/a"), tcp=True)])
async def test_another_kind_of_piece_is_asked_about_once(other: Bundle) -> None:
    asked = Asked()
    judge = Judge(asked)
    await judge.judge(bundle(route("/a")))
    await judge.judge(other)
    await judge.judge(other)
    assert asked.times == 2


@pytest.mark.parametrize("answer", [Invalid("no"), Unavailable("not now")])
async def test_what_was_not_taken_is_asked_about_again(answer: Exception) -> None:
    asked = Asked()
    judge = Judge(asked)
    asked.answer = answer
    for _ in range(2):
        with pytest.raises(type(answer)):
            await judge.judge(bundle(route("/a")))
    asked.answer = None
    await judge.judge(bundle(route("/a")))
    await judge.judge(bundle(route("/b")))
    assert asked.times == 3


@pytest.mark.parametrize(
    "templates",
    [
        {"clusters": [{"name": "mine", "value": "name: {{ ClusterName | tojson }}"}]},
        {"routes": [{"name": "mine", "value": "name: {{ PortName | tojson }}"}]},
    ],
)
async def test_what_templates_rendered_is_always_asked_about(templates: dict[str, object]) -> None:
    asked = Asked()
    judge = Judge(asked)
    given = EnvoyResources.model_validate(templates)
    for _ in range(2):
        await judge.judge(bundle(route("/a"), templates=given))
    assert asked.times == 2
    await judge.judge(bundle(route("/a")))
    assert asked.times == 3, "nothing is learned of what was judged together with a template's text"


def test_envoy_is_shown_one_of_each_kind() -> None:
    plain, of_header = (
        [route(f"/{n}") for n in range(50)],
        [route(f"/{n}", Header("x", "y")) for n in range(50)],
    )
    whole = bundle(*plain, *of_header, route("/z", Header("x", "y"), Header("z", "y")), tcp=True)
    shown = sample(whole)
    assert shown.listeners == whole.listeners
    (hosts,) = (found.virtual_hosts for found in shown.routes.values())
    assert [[each.match.path for each in host.routes] for host in hosts] == [["/0", "/0"]]
    again = sample(shown)
    assert (again.routes, again.clusters) == (shown.routes, shown.clusters)
    assert list(shown.clusters) == ["svc/svc/80"]


def test_of_hostnames_with_nothing_new_none_is_shown() -> None:
    hosts = [VirtualHost(f"h{number}.example", (route("/a"),)) for number in range(9)]
    hosts[4] = VirtualHost("h4.example", (route("/a"), HTTPRoute("none", "Exact", "/b", (), ())))
    ports = (Port(80, "HTTP", virtual_hosts=tuple(hosts)),)
    routing = Routing(GatewayId("root", "U1"), "", (IPv4Address("203.0.113.1"),), ports, ())
    (found,) = sample(build(routing, EnvoyResources())).routes.values()
    assert [(host.name, len(host.routes)) for host in found.virtual_hosts] == [
        ("host/h0.example", 1),
        ("host/h4.example", 1),
    ]
