# SPDX-License-Identifier: Apache-2.0
"""The fields of Gateway API objects that EPIC reads, spelled as in the API."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from epic.model.base import Camel

PortNumber = Annotated[int, Field(ge=1, le=65535)]


class AllowedRoutes(Camel):
    """Which routes a listener takes. Namespaces are settled by the client controller."""

    namespaces: dict[str, object] | None = None
    kinds: tuple[dict[str, str], ...] | None = None


class Listener(Camel):
    """A listener of a Gateway."""

    name: str
    port: PortNumber
    protocol: str
    hostname: str | None = None
    tls: dict[str, object] | None = None
    allowed_routes: AllowedRoutes | None = None


class GatewayAddress(Camel):
    """An address that a Gateway asks for; without a value, any of that type."""

    type: str = "IPAddress"
    value: str | None = None


class GatewaySpec(Camel):
    """A Gateway's spec."""

    gateway_class_name: str
    listeners: tuple[Listener, ...]
    addresses: Annotated[tuple[GatewayAddress, ...], Field(max_length=16)] = ()


class ParentReference(Camel):
    """The Gateway (on EPIC: the GWProxy) that a route attaches to."""

    group: str | None = None
    kind: str | None = None
    namespace: str | None = None
    name: str
    section_name: str | None = None
    port: PortNumber | None = None


class BackendRef(Camel):
    """Where requests go; on EPIC `name` is the client Service's UID."""

    group: str | None = None
    kind: str | None = None
    namespace: str | None = None
    name: str
    port: PortNumber | None = None
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 1


class PathMatch(Camel):
    """How a rule matches the path; RegularExpression comes later."""

    type: Literal["Exact", "PathPrefix"] = "PathPrefix"
    value: str = "/"


class HeaderMatch(Camel):
    """A header that must have exactly this value; the name's case does not matter."""

    type: Literal["Exact"] = "Exact"
    name: str
    value: str


class HTTPRouteMatch(Camel):
    """All of its conditions must hold."""

    path: PathMatch = PathMatch()
    headers: tuple[HeaderMatch, ...] = ()


class HTTPRouteRule(Camel):
    """Any match of the rule sends the request to one of the backends, by weight."""

    name: str | None = None
    matches: tuple[HTTPRouteMatch, ...] = (HTTPRouteMatch(),)
    backend_refs: tuple[BackendRef, ...] = ()


class HTTPRouteSpec(Camel):
    """An HTTPRoute's spec."""

    parent_refs: tuple[ParentReference, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[HTTPRouteRule, ...] = (HTTPRouteRule(),)


class TCPRouteRule(Camel):
    """Connections go to one of the backends, by weight."""

    name: str | None = None
    backend_refs: tuple[BackendRef, ...] = ()


class TCPRouteSpec(Camel):
    """A TCPRoute's spec."""

    parent_refs: tuple[ParentReference, ...] = ()
    rules: tuple[TCPRouteRule, ...] = ()


class EndpointConditions(Camel):
    """An endpoint's conditions; absent means true (discovery.k8s.io/v1)."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(Camel):
    """One endpoint of an EndpointSlice."""

    addresses: tuple[str, ...]
    conditions: EndpointConditions = EndpointConditions()
    node_name: str | None = None


class EndpointPort(Camel):
    """One port of an EndpointSlice."""

    name: str | None = None
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    port: PortNumber | None = None
