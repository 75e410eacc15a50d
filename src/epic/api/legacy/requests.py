# SPDX-License-Identifier: Apache-2.0
"""Bodies of the original's first API."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from epic.api.bodies import Asked, Body, Input
from epic.kinds.registry import LOAD_BALANCER, REMOTE_ENDPOINT
from epic.model.balancers import RemoteEndpointSpec
from epic.model.base import Kebab
from epic.model.resources import PublicPorts
from epic.model.values.addresses import AnyAddress, tunnel_address
from epic.model.values.client_text import ClientLine

_Cluster = Annotated[ClientLine, Field(min_length=1)]


class ServiceSpecInput(Kebab):
    """All that a client may set of a Service."""

    display_name: ClientLine = ""
    public_ports: PublicPorts = ()
    upstream_clusters: tuple[_Cluster, ...] = ()
    true_ingress: bool = True

    @model_validator(mode="after")
    def _each_port_and_cluster_once(self) -> Self:
        if not self.public_ports:
            raise ValueError("public-ports: give at least one port")
        ports = Counter(f"{port.protocol} {port.port}" for port in self.public_ports)
        for where, counts in (
            ("public-ports", ports),
            ("upstream-clusters", Counter(self.upstream_clusters)),
        ):
            twice = next((name for name, count in counts.items() if count > 1), None)
            if twice is not None:
                raise ValueError(f"{where}: {twice!r} is there {counts[twice]} times; give it once")
        return self


class ServiceInput(Input):
    """A Service."""

    spec: ServiceSpecInput


class ServiceBody(Body):
    """POST of a Service."""

    kind = LOAD_BALANCER
    service: ServiceInput


class ClusterBody(Asked, Body):
    """POST of a cluster that is to serve a Service."""

    cluster_id: Annotated[_Cluster, Field(alias="cluster-id")]


def _reachable(value: object) -> object:
    return tunnel_address(value) if isinstance(value, str) else value


def _reachable_or_none(value: object) -> object:
    return None if value == "" else _reachable(value)


class EndpointSpecInput(RemoteEndpointSpec):
    """Where a cluster serves a Service."""

    cluster: _Cluster
    address: Annotated[AnyAddress, BeforeValidator(_reachable)]
    node_address: Annotated[AnyAddress | None, BeforeValidator(_reachable_or_none)] = None

    @field_validator("load_balancer", mode="before")
    @classmethod
    def _is_given_by_the_path(cls, _: object) -> str:
        return ""


class EndpointInput(Input):
    """An endpoint."""

    spec: EndpointSpecInput


class EndpointBody(Body):
    """POST of an endpoint."""

    kind = REMOTE_ENDPOINT
    endpoint: EndpointInput
