# SPDX-License-Identifier: Apache-2.0
"""The kinds of a client's objects as typed data. Pure."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import AwareDatetime, Field, SecretStr

from epic.controller.objects.refs import CONFIG_GROUP, GATEWAY_GROUP, Problem, Ref
from epic.model.base import Camel, Kebab
from epic.model.gatewayapi import (
    Endpoint,
    EndpointPort,
    GatewaySpec,
    GRPCRouteSpec,
    HTTPRouteSpec,
    PortNumber,
    TCPRouteSpec,
    TLSRouteSpec,
    UDPRouteSpec,
)
from epic.model.values.naming import AccountName, ObjectName


class ObjectMeta(Camel):
    """Who an object is."""

    name: str = Field(min_length=1)
    namespace: str = "default"
    uid: str = ""
    creation_timestamp: AwareDatetime | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class ClientObject(Camel):
    """An object of the client; `content` is the document that it was read from."""

    kind: ClassVar[str]
    group: ClassVar[str]
    namespaced: ClassVar[bool] = True
    metadata: ObjectMeta
    source: str = Field(default="", exclude=True)
    document: int = Field(default=0, exclude=True)
    content: dict[str, Any] = Field(default={}, exclude=True, repr=False)

    @cached_property
    def ref(self) -> Ref:
        """Which object it is."""
        return Ref(self.kind, self.metadata.namespace if self.namespaced else "", self.metadata.name)

    def problem(self, reason: str, message: str) -> Problem:
        """What is wrong with it."""
        return Problem(self.source, str(self.ref), reason, message, self.document)


class EpicParameters(Kebab):
    """Where a class makes its gateways. Without credentials, the user's own are meant."""

    cluster_name: str = ""
    gateway_hostname: str = Field(default="", pattern=r"^[^\s/@]*$")
    service_account: str = ""
    service_key: SecretStr = SecretStr("")
    user_namespace: AccountName
    gateway_template: ObjectName


class GatewayClassConfigSpec(Camel):
    """A GatewayClassConfig's spec."""

    epic: EpicParameters


class GatewayClassConfig(ClientObject):
    """The account and template of a GatewayClass."""

    kind: ClassVar[str] = "GatewayClassConfig"
    group: ClassVar[str] = CONFIG_GROUP
    spec: GatewayClassConfigSpec


class ParametersRef(Camel):
    """The GatewayClassConfig of a class."""

    group: str
    kind: str
    name: str
    namespace: str = "default"


class GatewayClassSpec(Camel):
    """A GatewayClass's spec."""

    controller_name: str
    parameters_ref: ParametersRef | None = None


class GatewayClass(ClientObject):
    """A class of gateways; others' are left alone."""

    kind: ClassVar[str] = "GatewayClass"
    group: ClassVar[str] = GATEWAY_GROUP
    namespaced: ClassVar[bool] = False
    spec: GatewayClassSpec


class Gateway(ClientObject):
    """A gateway."""

    kind: ClassVar[str] = "Gateway"
    group: ClassVar[str] = GATEWAY_GROUP
    spec: GatewaySpec


class HTTPRoute(ClientObject):
    """Routes of HTTP requests."""

    kind: ClassVar[str] = "HTTPRoute"
    group: ClassVar[str] = GATEWAY_GROUP
    spec: HTTPRouteSpec


class TCPRoute(ClientObject):
    """Routes of TCP connections."""

    kind: ClassVar[str] = "TCPRoute"
    group: ClassVar[str] = GATEWAY_GROUP
    spec: TCPRouteSpec


class GRPCRoute(ClientObject):
    """Routes of gRPC calls; no listener takes them."""

    kind: ClassVar[str] = "GRPCRoute"
    group: ClassVar[str] = GATEWAY_GROUP
    spec: GRPCRouteSpec


class TLSRoute(ClientObject):
    """Routes of TLS connections; no listener takes them."""

    kind: ClassVar[str] = "TLSRoute"
    group: ClassVar[str] = GATEWAY_GROUP
    spec: TLSRouteSpec


class UDPRoute(ClientObject):
    """Routes of datagrams; no listener takes them."""

    kind: ClassVar[str] = "UDPRoute"
    group: ClassVar[str] = GATEWAY_GROUP
    spec: UDPRouteSpec


Route = HTTPRoute | TCPRoute | GRPCRoute | TLSRoute | UDPRoute
ROUTES: tuple[type[ClientObject], ...] = (HTTPRoute, TCPRoute, GRPCRoute, TLSRoute, UDPRoute)


class GrantedFrom(Camel):
    """Whose references a grant permits: objects of a kind in a namespace."""

    group: str
    kind: str
    namespace: str


class GrantedTo(Camel):
    """What may be referred to: objects of a kind, or the one of that name."""

    group: str
    kind: str
    name: str | None = None


class ReferenceGrantSpec(Camel):
    """A ReferenceGrant's spec."""

    sources: tuple[GrantedFrom, ...] = Field(alias="from", min_length=1, max_length=16)
    to: tuple[GrantedTo, ...] = Field(min_length=1, max_length=16)


class ReferenceGrant(ClientObject):
    """Lets objects of other namespaces refer to some of its own."""

    kind: ClassVar[str] = "ReferenceGrant"
    group: ClassVar[str] = GATEWAY_GROUP
    spec: ReferenceGrantSpec


class Namespace(ClientObject):
    """A namespace; its labels may decide which listeners take its routes."""

    kind: ClassVar[str] = "Namespace"
    group: ClassVar[str] = ""
    namespaced: ClassVar[bool] = False


class ClientServicePort(Camel):
    """A port of a Service; without a target port it is the endpoints' port too."""

    name: str = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    port: PortNumber
    target_port: int | str | None = None


class ServiceSpec(Camel):
    """A Service's spec."""

    ports: tuple[ClientServicePort, ...] = ()


class Service(ClientObject):
    """What routes send requests to."""

    kind: ClassVar[str] = "Service"
    group: ClassVar[str] = ""
    spec: ServiceSpec = ServiceSpec()


class EndpointSlice(ClientObject):
    """Endpoints of the Service that its label names."""

    kind: ClassVar[str] = "EndpointSlice"
    group: ClassVar[str] = "discovery.k8s.io"
    address_type: Literal["IPv4", "IPv6", "FQDN"] = "IPv4"
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


_KINDS: tuple[type[ClientObject], ...] = (
    GatewayClassConfig,
    GatewayClass,
    Gateway,
    *ROUTES,
    Service,
    EndpointSlice,
    ReferenceGrant,
    Namespace,
)
KINDS = {kind.kind: kind for kind in _KINDS}
