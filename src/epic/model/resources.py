# SPDX-License-Identifier: Apache-2.0
"""EPIC's resources (group epic.acnodal.io/v1 where they exist in Kubernetes)."""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from epic.model.base import Camel, ClientRef, Condition, Kebab, Resource
from epic.model.gatewayapi import (
    Endpoint,
    EndpointPort,
    GatewaySpec,
    GRPCRouteSpec,
    HTTPRouteSpec,
    ParentReference,
    PortNumber,
    TCPRouteSpec,
    TLSRouteSpec,
    UDPRouteSpec,
)
from epic.model.instances import ProxyInstance
from epic.model.nodes import NodeStatus
from epic.model.values.addresses import Address, AnyAddress, both
from epic.model.values.keys import EpochKey
from epic.model.values.limits import Items, Text
from epic.model.values.naming import GUE_PORT, GatewayId, ObjectName


class AccountSpec(Kebab):
    """An account's limits.

    A tunnel counts once for each instance that a gateway is to have: not twice while one moves. The bytes are
    those of memory that routes and EndpointSlices take.
    """

    proxy_limit: Annotated[int, Field(ge=0, alias="proxyLimit")] = 20
    workload_node_limit: Annotated[int, Field(ge=0, alias="workloadNodeLimit")] = 250
    tunnel_limit: Annotated[int, Field(ge=0, alias="tunnelLimit")] = 2000
    endpoint_limit: Annotated[int, Field(ge=0, alias="endpointLimit")] = 20000
    route_limit: Annotated[int, Field(ge=0, alias="routeLimit")] = 1000
    slice_limit: Annotated[int, Field(ge=0, alias="sliceLimit")] = 2000
    bytes_limit: Annotated[int, Field(ge=0, alias="bytesLimit")] = 64 << 20


class Account(Resource):
    """A tenant."""

    kind: ClassVar[str] = "Account"
    spec: AccountSpec = AccountSpec()


ClusterIDs = Annotated[tuple[Annotated[str, Text(253)], ...], Items(64, "clusters")]
"""Of clusters of an account's clients."""


class UserSpec(Kebab):
    """Who may speak for an account; of `cluster_ids` only, where there are any.

    `account` is empty for the platform's administrators.
    """

    password_hash: str
    admin: bool = False
    cluster_ids: ClusterIDs = ()


class User(Resource):
    """A user of the REST API (metadata.namespace is the account; admins have none)."""

    kind: ClassVar[str] = "User"
    spec: UserSpec


class AddressPool(Kebab):
    """Public addresses: `pool` is a CIDR or `FIRST-LAST`, inside `subnet`."""

    pool: str
    subnet: IPv4Network | IPv6Network
    aggregation: str = "default"


class ServicePrefixSpec(Kebab):
    """A ServicePrefix's pools.

    An `alt_pool` of the same family is used when `public_pool` has no free address; of one of the other
    family each gateway gets a second address.
    """

    public_pool: AddressPool
    alt_pool: AddressPool | None = None


class ServicePrefix(Resource):
    """A pool of public addresses (short name sp), of the whole cluster."""

    kind: ClassVar[str] = "ServicePrefix"
    spec: ServicePrefixSpec


class Template(Camel):
    """One Envoy resource as Jinja2 text that renders YAML."""

    name: Annotated[str, Text(253)]
    value: Annotated[str, Text(131_072)]


Templates = Annotated[tuple[Template, ...], Items(16, "templates")]


class EnvoyResources(Camel):
    """Templates by type; what a type without any is made of is EPIC's own."""

    clusters: Templates = ()
    listeners: Templates = ()
    routes: Templates = ()


class EnvoyTemplate(Camel):
    """The Envoy templates of a service group."""

    envoy_resources: EnvoyResources = EnvoyResources()


class EndpointTemplate(Camel):
    """How a gateway's DNS name is formed (Jinja2).

    `record_type` decides nothing: there is a record for each address, of the type that its family has.
    """

    dns_name: Annotated[str, Text(1000)] = (
        "{{ ClusterServiceName }}-{{ ClusterServiceNS }}-{{ Account }}{{ Distinct }}.example.net"
    )
    record_type: Literal["A", "AAAA"] = "A"
    record_ttl: Annotated[int, Field(ge=0, alias="recordTTL")] = 180


class LBServiceGroupSpec(Kebab):
    """A gateway template."""

    service_prefix: str
    can_be_shared: bool = False
    envoy_version: str | None = None
    envoy_replica_count: Annotated[int, Field(ge=1)] = 2
    envoy_template: EnvoyTemplate = EnvoyTemplate()
    endpoint_template: EndpointTemplate = EndpointTemplate()


class LBServiceGroup(Resource):
    """A gateway template (short name lbsg) of an account."""

    kind: ClassVar[str] = "LBServiceGroup"
    spec: LBServiceGroupSpec


class ServicePort(Camel):
    """A public port."""

    name: Annotated[str, Text(253)] = ""
    protocol: Literal["TCP", "UDP"] = "TCP"
    port: PortNumber
    target_port: int | str = 0


PublicPorts = Annotated[tuple[ServicePort, ...], Items(64, "ports", given=1024)]


class DNSEndpoint(Camel):
    """A DNS record of a gateway, in external-dns' shape."""

    dns_name: str
    targets: tuple[str, ...]
    record_type: Literal["A", "AAAA"] = "A"
    record_ttl: Annotated[int, Field(alias="recordTTL")] = 180


class EpicPort(Camel):
    """Where the EPIC end of a tunnel listens."""

    port: PortNumber = GUE_PORT
    protocol: Literal["UDP"] = "UDP"
    app_protocol: Literal["gue"] = "gue"


class TunnelEndpoint(Kebab):
    """One tunnel from a client node to an EPIC node."""

    epic_address: AnyAddress
    epic_port: EpicPort = EpicPort()
    tunnel_id: int


class NodeTunnelEndpoints(Kebab):
    """The tunnels of one client node, by EPIC node address."""

    epic_endpoints: dict[str, TunnelEndpoint] = {}


class GWProxySpec(Kebab):
    """A gateway. The client gives the first four fields; EPIC fills in the others.

    `alt_address` is its second public address, of the other family, where its pool has both.
    """

    client_ref: Annotated[ClientRef, Field(alias="clientRef")] = ClientRef()
    display_name: str = ""
    public_ports: PublicPorts = ()
    gateway: GatewaySpec | None = None
    group: str = ""
    service_prefix: str = ""
    public_address: AnyAddress | None = None
    alt_address: AnyAddress | None = None
    endpoints: tuple[DNSEndpoint, ...] = ()
    gue_tunnel_endpoints: dict[str, NodeTunnelEndpoints] = {}


class GWProxyStatus(Kebab):
    """Where a gateway runs and how it is. `service` is its number in the tunnel header.

    Envoy knows the endpoints of `unmapped_cluster` by their own addresses, those of other clusters by
    mapped ones; it is the first cluster that had endpoints behind the gateway, and never changes.
    `unplaced` counts the instances that it is to have besides `instances`, for which there is no room;
    `unconnected` the workload nodes to which the account may have no tunnels any more, `crowded_out` the
    tunnels for which EPIC nodes have no room.
    """

    service: int = 0
    unmapped_cluster: str | None = None
    instances: tuple[ProxyInstance, ...] = ()
    unplaced: Annotated[int, Field(ge=0)] = 0
    unconnected: Annotated[int, Field(ge=0)] = 0
    crowded_out: Annotated[int, Field(ge=0)] = 0
    revision: str = ""
    conditions: tuple[Condition, ...] = ()


class GWProxy(Resource):
    """A gateway on the EPIC side; its name is the client Gateway's UID (or sharing key)."""

    kind: ClassVar[str] = "GWProxy"
    spec: GWProxySpec
    status: GWProxyStatus = GWProxyStatus()

    @property
    def id(self) -> GatewayId:
        """The gateway id."""
        return GatewayId(self.account, self.name)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Its public addresses: none yet, one, or one of each family."""
        return both(self.spec.public_address, self.spec.alt_address)


AnyRouteSpec = HTTPRouteSpec | TCPRouteSpec | UDPRouteSpec | TLSRouteSpec | GRPCRouteSpec


class GWRouteSpec(Camel):
    """A route of one of these types; `grpc`, `tls` and `udp` are kept, and attach to no listener."""

    client_ref: ClientRef = ClientRef()
    http: HTTPRouteSpec | None = None
    tcp: TCPRouteSpec | None = None
    grpc: GRPCRouteSpec | None = None
    tls: TLSRouteSpec | None = None
    udp: UDPRouteSpec | None = None

    @property
    def types(self) -> dict[str, AnyRouteSpec]:
        """What it is, by the Gateway API's kind: one, unless it was stored wrong."""
        every: dict[str, AnyRouteSpec | None] = {
            "HTTPRoute": self.http,
            "TCPRoute": self.tcp,
            "GRPCRoute": self.grpc,
            "TLSRoute": self.tls,
            "UDPRoute": self.udp,
        }
        return {kind: spec for kind, spec in every.items() if spec is not None}

    @property
    def parent_refs(self) -> tuple[ParentReference, ...]:
        """The Gateways that it names."""
        return next((spec.parent_refs for spec in self.types.values()), ())


class GWRoute(Resource):
    """A route on the EPIC side; its name is the client route's UID."""

    kind: ClassVar[str] = "GWRoute"
    spec: GWRouteSpec


ENDPOINTS = Items(1000, "endpoints")
NODE_ADDRESSES = Items(5000, "nodes")


class GWEndpointSliceSpec(Camel):
    """A client EndpointSlice; `parent_ref.uid` is the Service's UID, the Envoy cluster's name."""

    client_ref: ClientRef = ClientRef()
    parent_ref: ClientRef = ClientRef()
    address_type: Literal["IPv4", "IPv6"] = "IPv4"
    endpoints: Annotated[tuple[Endpoint, ...], ENDPOINTS] = ()
    ports: Annotated[tuple[EndpointPort, ...], Items(20_000, "ports")] = ()
    node_addresses: Annotated[dict[str, AnyAddress], NODE_ADDRESSES] = {}


class GWEndpointSlice(Resource):
    """A slice on the EPIC side; its name is the client EndpointSlice's UID."""

    kind: ClassVar[str] = "GWEndpointSlice"
    spec: GWEndpointSliceSpec


class NodeSpec(Kebab):
    """An EPIC node that can run instances.

    `unheard_ok`: instances leave it in a drain though no router hears those that take their place.
    """

    address: AnyAddress
    management_address: str = ""
    underlay_mtu: Annotated[int, Field(ge=1280, le=65535)] = 1500
    capacity: Annotated[int, Field(ge=0)] = 250
    schedulable: bool = True
    drain: bool = False
    unheard_ok: bool = False


class Node(Resource):
    """An EPIC node, of the whole cluster."""

    kind: ClassVar[str] = "Node"
    spec: NodeSpec
    status: NodeStatus = NodeStatus()


class TunnelSpec(Kebab):
    """A tunnel between a gateway's instance on an EPIC node and a workload node of the account."""

    proxy: ObjectName
    service: int
    epic_node: str
    inside_address: IPv4Address
    cluster_id: str
    node_name: str
    node_address: AnyAddress
    keys: tuple[EpochKey, ...]
    signing_epoch: int
    signing_since: datetime


class Tunnel(Resource):
    """A tunnel; its name is its decimal id. It holds keys: never shown but to its two ends."""

    kind: ClassVar[str] = "Tunnel"
    spec: TunnelSpec
