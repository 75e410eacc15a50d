# SPDX-License-Identifier: Apache-2.0
"""Validation by the pinned Envoy binary."""

from __future__ import annotations

import shutil
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from epic.envoy.resources import build
from epic.envoy.validate import validate
from epic.errors import Invalid, Unavailable
from epic.gatewayapi.routing import Cluster, Header, HTTPRoute, Port, Routing, VirtualHost, WeightedCluster
from epic.model.resources import EnvoyResources
from epic.model.values.naming import GatewayId

ENVOY = shutil.which("envoy")
pytestmark = pytest.mark.skipif(ENVOY is None, reason="the pinned Envoy is not on the PATH")

SHARES = (WeightedCluster("svc/svc/80", 1), WeightedCluster("missing/Service/gone", 1, exists=False))
ROUTES = (
    HTTPRoute("r/0", "Exact", "/a", (Header("x", "y"),), SHARES),
    HTTPRoute("r/1", "PathPrefix", "/b c\"'{}", (), SHARES),
    HTTPRoute("r/2", "PathPrefix", "/", (), ()),
)
ROUTING = Routing(
    gateway=GatewayId("root", "U1"),
    display_name="",
    addresses=(IPv4Address("203.0.113.1"),),
    ports=(
        Port(80, "HTTP", virtual_hosts=(VirtualHost("*", ROUTES), VirtualHost("*.example.com", ()))),
        Port(5432, "TCP", backends=SHARES),
        Port(5433, "TCP"),
    ),
    clusters=(Cluster("svc", 80), Cluster("svc", 81)),
)


async def refusal(kind: str, body: str) -> str:
    templates = EnvoyResources.model_validate({kind: [{"name": "mine", "value": body}]})
    with pytest.raises(Invalid) as raised:
        await validate(Path(str(ENVOY)), build(ROUTING, templates))
    return str(raised.value)


async def test_envoy_takes_what_the_code_builds() -> None:
    await validate(Path(str(ENVOY)), build(ROUTING, EnvoyResources()))


async def test_envoy_takes_whatever_texts_the_code_builds_in() -> None:
    """Only kinds of pieces are asked about once they are known: no text may make Envoy refuse one."""
    texts = [
        "{{ 7 * 7 }}",
        "%REQ(:path)%",
        "\"'`",
        "\r\nb: c",
        "\u2028\u2029\ufeff",
        "v" * 4096,
        "%",
        "(",
        "\x00",
        "ü",
    ]
    routes = [
        HTTPRoute(text, kind, f"/{text}", (Header("x", text), Header("%|~^", text)), SHARES)
        for text in texts
        for kind in ("Exact", "PathPrefix")
    ]
    hosts = [
        VirtualHost(name, tuple(routes)) for name in ("*", "*.example.com", "a.example.com", "xn--n3h.x")
    ]
    shares = (WeightedCluster(texts[0], 1_000_000),) * 16
    ports = (Port(80, "HTTP", virtual_hosts=tuple(hosts)), Port(81, "TCP", backends=shares))
    await validate(Path(str(ENVOY)), build(replace(ROUTING, ports=ports), EnvoyResources()))


async def test_the_place_of_a_broken_constraint_is_told_in_one_line() -> None:
    message = await refusal(
        "routes", "name: {{ PortName | tojson }}\nvirtual_hosts: [{name: a, domains: []}]"
    )
    assert message == (
        "Envoy refuses the configuration: HttpConnectionManager.RouteConfig"
        " > RouteConfiguration.VirtualHosts[0] > VirtualHost.Domains: value must contain at least 1 item(s)"
    )


async def test_another_fault_is_told_in_envoys_words() -> None:
    message = await refusal("clusters", "name: {{ ClusterName | tojson }}\ntype: EDS")
    assert message == "Envoy refuses the configuration: cannot create an EDS cluster without an EDS config"


async def test_routes_are_validated_though_they_come_by_rds() -> None:
    hosts = "[{name: a, domains: ['*']}, {name: b, domains: ['*']}]"
    message = await refusal("routes", f"name: {{{{ PortName | tojson }}}}\nvirtual_hosts: {hosts}")
    assert "Only a single wildcard domain is permitted in route port/80" in message


async def test_a_missing_binary_is_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"cannot be validated at present; it is tried again$"):
        await validate(tmp_path / "envoy", build(ROUTING, EnvoyResources()))


@pytest.mark.parametrize("service", ["epic-agent", "validate-xds", "a/b", "%2F", "UID:80", "üñí→code"])
async def test_envoy_takes_services_of_any_name(service: str) -> None:
    cluster = Cluster(service, 80)
    ports = (Port(5432, "TCP", backends=(WeightedCluster(cluster.name, 1),)),)
    routing = replace(ROUTING, ports=ports, clusters=(cluster,))
    await validate(Path(str(ENVOY)), build(routing, EnvoyResources()))
