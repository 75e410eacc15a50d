# SPDX-License-Identifier: Apache-2.0
"""The fields of Gateway API objects that EPIC reads, spelled as in the API."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from epic.model.base import Camel
from epic.model.values.limits import Items, Text

PortNumber = Annotated[int, Field(ge=1, le=65535)]

_LABEL = "[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
# The case of a hostname does not matter.
_HOST_LABEL = "[A-Za-z0-9](?:[-A-Za-z0-9]*[A-Za-z0-9])?"
_HOST = rf"(?:\*\.)?{_HOST_LABEL}(?:\.{_HOST_LABEL})*"
_A_HOSTNAME = "a DNS name, perhaps with '*.' before it"

# As the Gateway API has them.
Hostname = Annotated[str, Text(253, least=1, pattern=_HOST, right=_A_HOSTNAME)]
HostnameOrAny = Annotated[str, Text(253, pattern=f"(?:{_HOST})?", right=_A_HOSTNAME)]
SectionName = Annotated[
    str,
    Text(
        253,
        least=1,
        pattern=rf"{_LABEL}(?:\.{_LABEL})*",
        right="lower-case letters, digits and inner '-' and '.'",
    ),
]
Group = Annotated[str, Text(253)]
KindName = Annotated[
    str, Text(63, least=1, pattern="[A-Za-z](?:[-A-Za-z0-9]*[A-Za-z0-9])?", right="a kind such as Service")
]
Namespace = Annotated[str, Text(63)]
ReferredName = Annotated[str, Text(253, least=1)]
MOST_RULES = 16


Unserved = dict[str, object]
"""A field of the Gateway API that is known and not served: a condition says so, or refuses a route for it."""


class AllowedRoutes(Camel):
    """Which routes a listener takes."""

    namespaces: dict[str, object] | None = None
    kinds: Annotated[tuple[dict[str, str], ...] | None, Items(8, "kinds")] = None


class Listener(Camel):
    """A listener of a Gateway."""

    name: SectionName
    port: PortNumber
    protocol: Annotated[str, Text(255, least=1)]
    hostname: HostnameOrAny | None = None
    tls: dict[str, object] | None = None
    allowed_routes: AllowedRoutes | None = None


class GatewayAddress(Camel):
    """An address that a Gateway asks for; without a value, any of that type."""

    type: str = "IPAddress"
    value: Annotated[str, Text(253)] | None = None


class GatewaySpec(Camel):
    """A Gateway's spec. The last four fields are not served."""

    gateway_class_name: ReferredName
    listeners: Annotated[tuple[Listener, ...], Items(64, "listeners")]
    addresses: Annotated[tuple[GatewayAddress, ...], Items(16, "addresses")] = ()
    infrastructure: Unserved | None = None
    allowed_listeners: Unserved | None = None
    tls: Unserved | None = None
    default_scope: Annotated[str, Text(16)] | None = None


class ParentReference(Camel):
    """The Gateway (on EPIC: the GWProxy) that a route attaches to."""

    group: Group | None = None
    kind: KindName | None = None
    namespace: Namespace | None = None
    name: ReferredName
    section_name: SectionName | None = None
    port: PortNumber | None = None


Filters = Annotated[tuple[Unserved, ...], Items(16, "filters")]


class BackendRef(Camel):
    """Where requests go; on EPIC `name` is the client Service's UID. `filters` are not served."""

    group: Group | None = None
    kind: KindName | None = None
    namespace: Namespace | None = None
    name: ReferredName
    port: PortNumber | None = None
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 1
    filters: Filters | None = None


ParentRefs = Annotated[tuple[ParentReference, ...], Items(32, "parents")]
BackendRefs = Annotated[tuple[BackendRef, ...], Items(16, "backends")]


class PathMatch(Camel):
    """How a rule matches the path. RegularExpression is not served."""

    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: Annotated[str, Text(1024, least=1)] = "/"


class HeaderMatch(Camel):
    """A header that must have exactly this value; the name's case does not matter.

    RegularExpression is not served.
    """

    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: Annotated[
        str, Text(256, least=1, pattern=r"[-A-Za-z0-9!#$%&'*+.^_`|~]+", right="the name of an HTTP header")
    ]
    value: Annotated[str, Text(4096, least=1)]


class HTTPRouteMatch(Camel):
    """All of its conditions must hold. `query_params` and `method` are not served."""

    path: PathMatch = PathMatch()
    headers: Annotated[tuple[HeaderMatch, ...], Items(16, "headers")] = ()
    query_params: Annotated[tuple[Unserved, ...], Items(16, "query parameters")] | None = None
    method: Annotated[str, Text(16)] | None = None


class HTTPRouteRule(Camel):
    """Any match of the rule sends the request to one of the backends, by weight.

    The last four fields are not served.
    """

    name: SectionName | None = None
    matches: Annotated[tuple[HTTPRouteMatch, ...], Items(64, "matches")] = (HTTPRouteMatch(),)
    backend_refs: BackendRefs = ()
    filters: Filters | None = None
    timeouts: Unserved | None = None
    retry: Unserved | None = None
    session_persistence: Unserved | None = None


class HTTPRouteSpec(Camel):
    """An HTTPRoute's spec."""

    parent_refs: ParentRefs = ()
    hostnames: Annotated[tuple[Hostname, ...], Items(16, "hostnames")] = ()
    rules: Annotated[tuple[HTTPRouteRule, ...], Items(MOST_RULES, "rules")] = (HTTPRouteRule(),)


class TCPRouteRule(Camel):
    """Connections go to one of the backends, by weight."""

    name: SectionName | None = None
    backend_refs: BackendRefs = ()


class TCPRouteSpec(Camel):
    """A TCPRoute's spec."""

    parent_refs: ParentRefs = ()
    rules: Annotated[tuple[TCPRouteRule, ...], Items(MOST_RULES, "rules")] = ()


class UDPRouteSpec(TCPRouteSpec):
    """A UDPRoute's spec. It is not served."""


class TLSRouteSpec(TCPRouteSpec):
    """A TLSRoute's spec, by the names that clients ask for. It is not served."""

    hostnames: Annotated[tuple[Hostname, ...], Items(1024, "hostnames")] = ()


class GRPCMethodMatch(Camel):
    """Which methods of which services."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    service: Annotated[str, Text(1024)] | None = None
    method: Annotated[str, Text(1024)] | None = None


class GRPCRouteMatch(Camel):
    """All of its conditions must hold."""

    method: GRPCMethodMatch | None = None
    headers: Annotated[tuple[HeaderMatch, ...], Items(16, "headers")] = ()


class GRPCRouteRule(Camel):
    """Any match of the rule sends the call to one of the backends, by weight."""

    name: SectionName | None = None
    matches: Annotated[tuple[GRPCRouteMatch, ...], Items(64, "matches")] = ()
    backend_refs: BackendRefs = ()
    filters: Filters | None = None
    session_persistence: Unserved | None = None


class GRPCRouteSpec(Camel):
    """A GRPCRoute's spec. It is not served."""

    parent_refs: ParentRefs = ()
    hostnames: Annotated[tuple[Hostname, ...], Items(16, "hostnames")] = ()
    rules: Annotated[tuple[GRPCRouteRule, ...], Items(MOST_RULES, "rules")] = ()


class EndpointConditions(Camel):
    """An endpoint's conditions; absent means true (discovery.k8s.io/v1)."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(Camel):
    """One endpoint of an EndpointSlice."""

    addresses: Annotated[tuple[str, ...], Items(100, "addresses")]
    conditions: EndpointConditions = EndpointConditions()
    node_name: str | None = None


class EndpointPort(Camel):
    """One port of an EndpointSlice."""

    name: Annotated[str, Text(63)] | None = None
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    port: PortNumber | None = None
