# SPDX-License-Identifier: Apache-2.0
"""The kinds of the original's first API: a Service of type LoadBalancer, and where its clusters serve it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator

from epic.model.base import Camel, Kebab, Resource
from epic.model.gatewayapi import PortNumber
from epic.model.resources import PublicPorts
from epic.model.values.addresses import AnyAddress
from epic.model.values.limits import Items, Text

ClusterId = Annotated[str, Text(253, least=1)]
"""What a client calls its cluster."""


class LoadBalancerSpec(Kebab):
    """A Service; EPIC fills in `group`, its template.

    Only what lists its cluster in `upstream_clusters` may serve it.
    """

    display_name: str = ""
    public_ports: PublicPorts = ()
    upstream_clusters: Annotated[tuple[ClusterId, ...], Items(64, "clusters")] = ()
    true_ingress: bool = True
    group: str = ""


class LoadBalancer(Resource):
    """A Service of type LoadBalancer (short name lb); the gateway that serves it has its name."""

    kind: ClassVar[str] = "LoadBalancer"
    spec: LoadBalancerSpec


class RemotePort(Camel):
    """The port of an endpoint; it serves the public port of that name, else the only one, else its own."""

    name: Annotated[str, Text(63)] = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    port: PortNumber


def _none_if_empty(value: Any) -> Any:
    return None if value == "" else value


class RemoteEndpointSpec(Kebab):
    """An endpoint of a LoadBalancer in one of its clusters, on the node of that address.

    EPIC fills in `load_balancer`.
    """

    cluster: ClusterId
    address: AnyAddress
    node_address: Annotated[AnyAddress | None, BeforeValidator(_none_if_empty)] = None
    port: RemotePort
    load_balancer: str = ""


class RemoteEndpoint(Resource):
    """Where a cluster serves a LoadBalancer (short name rep); the slice that is made of it has its name."""

    kind: ClassVar[str] = "RemoteEndpoint"
    spec: RemoteEndpointSpec
