# SPDX-License-Identifier: Apache-2.0
"""Which templates a gateway needs rendered, with which variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from epic.envoy.rendering import RenderError, check_text, render
from epic.errors import Invalid
from epic.gatewayapi.routing import HTTPRoute, Port, Routing, WeightedCluster
from epic.model.resources import EnvoyResources, Template

Kind = Literal["cluster", "listener", "route"]
Variables = Mapping[str, object]

_COMMON = frozenset({"ServiceNamespace", "ServiceName", "PureLBServiceName", "PublicAddress", "AltAddress"})
_OF_PORT = frozenset({"PortName", "Port", "Protocol", "GatewayProtocol", "Clusters", "VirtualHosts"})
VARIABLES: Mapping[Kind, frozenset[str]] = {
    "cluster": _COMMON | {"ClusterName"},
    "listener": _COMMON | _OF_PORT,
    "route": _COMMON | _OF_PORT,
}
"""What templates may use."""


@dataclass(frozen=True)
class Task:
    """A template to be rendered with these variables."""

    kind: Kind
    template: Template
    variables: Variables


def tasks(routing: Routing, templates: EnvoyResources) -> list[Task]:
    """What must be rendered for a gateway."""
    common: dict[str, object] = {
        "ServiceNamespace": routing.gateway.account,
        "ServiceName": routing.gateway.proxy,
        "PureLBServiceName": routing.display_name,
        "PublicAddress": str(routing.addresses[0]),
        "AltAddress": str(routing.addresses[1]) if len(routing.addresses) > 1 else "",
    }
    found: list[Task] = []
    if templates.clusters:
        for cluster in routing.clusters:
            variables: dict[str, object] = {**common, "ClusterName": cluster.name}
            found += [Task("cluster", t, variables) for t in templates.clusters]
    if templates.listeners or templates.routes:
        known: dict[int, dict[str, object]] = {}
        for port in routing.ports:
            variables = {**common, **_port_variables(port, known)}
            found += [Task("listener", t, variables) for t in templates.listeners]
            if port.protocol == "HTTP":
                found += [Task("route", t, variables) for t in templates.routes]
    return found


def load(task: Task) -> dict[str, object] | None:
    """Render and parse a template; None when it renders to nothing. Raises Invalid."""
    try:
        return render(task.template.value, task.variables)
    except RenderError as error:
        raise Invalid(f"{title(task)}: {error}") from error


def check(templates: EnvoyResources, where: str) -> None:
    """Raise Invalid when a text is no template, or uses what it is not given; what it renders is not seen."""
    kinds: dict[Kind, tuple[Template, ...]] = {
        "cluster": templates.clusters,
        "listener": templates.listeners,
        "route": templates.routes,
    }
    for kind, found in kinds.items():
        for number, template in enumerate(found):
            try:
                check_text(template.value, VARIABLES[kind])
            except RenderError as error:
                at = f"{where}.envoyResources.{kind}s.{number}"
                raise Invalid(f"{at}: template {template.name!r}: {error}") from error


def title(task: Task) -> str:
    """What to call a task in messages."""
    variables = task.variables
    subject = variables["ClusterName"] if task.kind == "cluster" else variables["PortName"]
    return f"{task.kind.capitalize()} template {task.template.name!r} for {subject}"


def _port_variables(port: Port, known: dict[int, dict[str, object]]) -> dict[str, object]:
    """`known` are the variables of routes: one may be on many ports, and for many hostnames."""
    return {
        "PortName": port.name,
        "Port": port.number,
        "Protocol": "TCP",
        "GatewayProtocol": port.protocol,
        "Clusters": _clusters(port.backends),
        "VirtualHosts": [
            {
                "Name": host.name,
                "Domains": [host.hostname],
                "Routes": [_route_variables(route, known) for route in host.routes],
            }
            for host in port.virtual_hosts
        ],
    }


def _route_variables(route: HTTPRoute, known: dict[int, dict[str, object]]) -> dict[str, object]:
    found = known.get(id(route))
    if found is None:
        found = known[id(route)] = {
            "Name": route.name,
            "Path": {"Type": route.path_type, "Value": route.path},
            "Headers": [{"Name": h.name, "Value": h.value} for h in route.headers],
            "Clusters": _clusters(route.backends),
        }
    return found


def _clusters(shares: Iterable[WeightedCluster]) -> list[dict[str, object]]:
    return [{"Name": share.cluster, "Weight": share.weight} for share in shares]
