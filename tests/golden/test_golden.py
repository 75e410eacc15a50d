# SPDX-License-Identifier: Apache-2.0
"""Gateways and routes in, resources and statuses out: `input.yaml` and `output.yaml` in a directory each.

`input.yaml` has `listeners` (of gateway U1 with address 203.0.113.1), `routes` (by name; `http` or `tcp`,
and `age` in seconds), `slices` (by name; without a cluster they are of the one whose endpoints keep their
addresses) and `templates` of the service group. The output shows routes in
short, a line each in the order in which they are tried; `show: all` shows the Envoy resources as they are.
`--update` writes the outputs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from epic.envoy.endpoints import load_assignments
from epic.envoy.resources import build
from epic.errors import Invalid
from epic.gatewayapi.backends import missing_ports
from epic.gatewayapi.routing import HTTPRoute, Port, Routing, WeightedCluster
from epic.gatewayapi.target_ports import TargetPorts
from epic.gatewayapi.translate import Translation, translate
from epic.ipam.networks import DEFAULT_POOLS
from epic.model.resources import EnvoyResources, GWEndpointSlice, GWProxy, GWRoute
from epic.overlap import Place, endpoint_places, envoy_addresses

CASES = sorted(path.parent for path in Path(__file__).parent.glob("*/input.yaml"))
NEWEST = datetime(2026, 1, 1, tzinfo=UTC)

Yaml = dict[str, Any]


def proxy(given: Yaml) -> GWProxy:
    spec = {"public-address": "203.0.113.1", "public-ports": given.get("public-ports", [])}
    if "listeners" in given:
        spec["gateway"] = {"gatewayClassName": "epic", "listeners": given["listeners"]}
    return GWProxy.model_validate({"metadata": {"name": "U1", "namespace": "root"}, "spec": spec})


def routes(given: Yaml) -> list[GWRoute]:
    return [
        GWRoute.model_validate(
            {
                "metadata": {
                    "name": name,
                    "namespace": "root",
                    "creationTimestamp": NEWEST - timedelta(seconds=body.get("age", 0)),
                },
                "spec": {
                    kind: {"parentRefs": [{"name": "U1"}], **body[kind]}
                    for kind in ("http", "tcp")
                    if kind in body
                },
            }
        )
        for name, body in given.get("routes", {}).items()
    ]


def slices(given: Yaml) -> list[GWEndpointSlice]:
    return [
        GWEndpointSlice.model_validate({"metadata": {"name": name, "namespace": "root"}, "spec": spec})
        for name, spec in given.get("slices", {}).items()
    ]


def result(given: Yaml) -> Yaml:
    pieces = slices(given)
    ports: dict[str, list[TargetPorts]] = {}
    for piece in pieces:
        ports.setdefault(piece.spec.parent_ref.uid, []).append(TargetPorts(piece.spec.ports))
    found = routes(given)
    translation = translate(proxy(given), found, set(ports), missing_ports(found, ports))
    output = statuses(translation)
    try:
        return {**output, **resources(translation.routing, given, pieces)}
    except Invalid as error:
        return {**output, "refused": str(error)}


def statuses(translation: Translation) -> Yaml:
    return {
        "listeners": {
            state.name: {
                "accepted": state.accepted,
                "reason": state.reason,
                "attachedRoutes": state.attached_routes,
            }
            | ({"message": state.message} if state.message else {})
            for state in translation.listeners
        },
        "routes": [
            {"route": state.route, "accepted": state.accepted, "reason": state.reason}
            | ({"sectionName": state.section_name} if state.section_name else {})
            | ({"port": state.port} if state.port else {})
            | ({"message": state.message} if state.message else {})
            | ({"unresolved": list(state.unresolved)} if state.unresolved else {})
            for state in translation.parents
        ],
    }


def resources(routing: Routing, given: Yaml, pieces: list[GWEndpointSlice]) -> Yaml:
    bundle = build(routing, EnvoyResources.model_validate(given.get("templates", {})))
    services = {cluster.service for cluster in routing.clusters}
    addresses = envoy_addresses(endpoint_places(services, pieces), "", DEFAULT_POOLS)
    ports = {piece.name: TargetPorts(piece.spec.ports) for piece in pieces}
    output: Yaml = {
        "revision": bundle.revision,
        "endpoints": {
            name: [*places(ClusterLoadAssignment.FromString(content))]
            for name, content in load_assignments(
                routing.clusters, pieces, ports, lambda *place: addresses.get(Place(*place))
            ).encoded.items()
        },
    }
    if given.get("show") == "all":
        output["envoy"] = {
            "listeners": [*map(plain, bundle.listeners.values())],
            "clusters": [*map(plain, bundle.clusters.values())],
            "routes": [*map(plain, bundle.routes.values())],
        }
    else:
        output["ports"] = {port.name: brief_port(port) for port in routing.ports}
    return output


def brief_port(port: Port) -> Any:
    if port.protocol == "TCP":
        return brief_backends(port.backends) or "connections are closed"
    return {host.hostname: [brief_route(route) for route in host.routes] for host in port.virtual_hosts}


def brief_route(route: HTTPRoute) -> str:
    headers = "".join(f" {header.name}={header.value}" for header in route.headers)
    return (
        f"{route.path_type} {route.path}{headers} -> {brief_backends(route.backends) or 500} ({route.name})"
    )


def brief_backends(backends: Iterable[WeightedCluster]) -> str:
    return " + ".join(f"{b.weight} {b.cluster}{'' if b.exists else ' (missing)'}" for b in backends)


def places(assignment: Any) -> list[str]:
    addresses = [
        endpoint.endpoint.address.socket_address
        for locality in assignment.endpoints
        for endpoint in locality.lb_endpoints
    ]
    hosts = [f"[{a.address}]" if ":" in a.address else a.address for a in addresses]
    return [f"{host}:{address.port_value}" for host, address in zip(hosts, addresses, strict=True)]


def plain(message: Message) -> Yaml:
    return json.loads(MessageToJson(message, preserving_proto_field_name=True))


def written(output: Yaml) -> str:
    return yaml.safe_dump(output, sort_keys=False, width=110, allow_unicode=True)


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_output_is_as_recorded(case: Path, request: pytest.FixtureRequest) -> None:
    actual = written(result(yaml.safe_load((case / "input.yaml").read_text())))
    if request.config.getoption("--update", default=False):
        (case / "output.yaml").write_text(actual)
    assert actual == (case / "output.yaml").read_text()


def test_every_directory_is_a_case() -> None:
    contents = {case.name: sorted(path.name for path in case.iterdir()) for case in CASES}
    assert {name for name, files in contents.items() if files != ["input.yaml", "output.yaml"]} == set()
