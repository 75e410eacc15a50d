# SPDX-License-Identifier: Apache-2.0
"""The routing model of one gateway: what Envoy shall do, before it is written in Envoy's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from epic.gatewayapi.names import cluster_name, host_name, port_name
from epic.model.values.addresses import Address
from epic.model.values.naming import GatewayId


@dataclass(frozen=True)
class Cluster:
    """Endpoints of one port of a Service, by UID; None is the only port that the Service has."""

    service: str
    port: int | None

    @property
    def name(self) -> str:
        """The name of the Envoy cluster and of its load assignment."""
        return cluster_name(self.service, self.port)


@dataclass(frozen=True)
class WeightedCluster:
    """A share of the traffic; if it does not exist the answer is 500, or the connection is closed."""

    cluster: str
    weight: int
    exists: bool = True


@dataclass(frozen=True)
class Header:
    """A header that a request must have."""

    name: str
    value: str


@dataclass(frozen=True)
class HTTPRoute:
    """One match and where it leads. No backends: the answer is 500."""

    name: str
    path_type: Literal["Exact", "PathPrefix"]
    path: str
    headers: tuple[Header, ...]
    backends: tuple[WeightedCluster, ...]


@dataclass(frozen=True)
class VirtualHost:
    """The routes of a hostname (`*` for any), most specific first. No routes: every answer is 404."""

    hostname: str
    routes: tuple[HTTPRoute, ...]

    @property
    def name(self) -> str:
        """The name of the Envoy virtual host."""
        return host_name(self.hostname)


@dataclass(frozen=True)
class Port:
    """What one public port does: HTTP by virtual hosts, or TCP to backends (none: connections are closed)."""

    number: int
    protocol: Literal["HTTP", "TCP"]
    virtual_hosts: tuple[VirtualHost, ...] = ()
    backends: tuple[WeightedCluster, ...] = ()

    @property
    def name(self) -> str:
        """The name of the Envoy listener and of its route configuration."""
        return port_name(self.number)


@dataclass(frozen=True)
class Routing:
    """A gateway."""

    gateway: GatewayId
    display_name: str
    addresses: tuple[Address, ...]
    """Its public addresses: one, or one of each family."""
    ports: tuple[Port, ...]
    clusters: tuple[Cluster, ...]


@dataclass(frozen=True)
class ListenerStatus:
    """Whether a listener is served, and how many routes attach to it."""

    name: str
    accepted: bool
    reason: str
    message: str
    attached_routes: int


@dataclass(frozen=True)
class ParentStatus:
    """What became of one parentRef of a route."""

    route: str
    section_name: str | None
    port: int | None
    accepted: bool
    reason: str
    message: str
    unresolved: tuple[str, ...] = ()
    """Backends that do not exist."""
