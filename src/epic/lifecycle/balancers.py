# SPDX-License-Identifier: Apache-2.0
"""What serves a LoadBalancer of the original's first API, pure: a gateway, its TCPRoutes, EndpointSlices.

Each public port is a TCP listener of the gateway, and has a route; each endpoint is a slice of its own, of a
Service whose UID is the load balancer's name. A workload node is called by its address: those clients name
none.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from epic.model.balancers import LoadBalancer, RemoteEndpoint, RemoteEndpointSpec, RemotePort
from epic.model.base import ClientRef, Condition, Metadata, Resource, observed
from epic.model.gatewayapi import (
    BackendRef,
    Endpoint,
    EndpointPort,
    ParentReference,
    TCPRouteRule,
    TCPRouteSpec,
)
from epic.model.resources import (
    GWEndpointSlice,
    GWEndpointSliceSpec,
    GWProxy,
    GWRoute,
    GWRouteSpec,
    ServicePort,
)
from epic.model.values.naming import COMPATIBILITY

OWNER = "epic.acnodal.io/owning-loadbalancer"
"""The label of what is made for a load balancer: it goes with it, and nobody else changes it."""
NAME_MAX = 57
"""Characters of a load balancer's name: `.PORT` behind it is the name of a route."""
_IP_MAX = 36
_TCP = "TCP"


def labels_of(account: str, balancer: str) -> dict[str, str]:
    """The labels of what is made for a load balancer."""
    return {"epic.acnodal.io/owning-account": account, OWNER: balancer}


def owner_of(obj: Resource) -> str:
    """The load balancer that an object was made for; empty: it is its client's."""
    return obj.metadata.labels.get(OWNER, "")


def gateway_of(balancer: LoadBalancer, namespace: str) -> dict[str, Any]:
    """The spec of its gateway, as clients give one; `namespace` is what tells its DNS name from others."""
    ports = balancer.spec.public_ports
    listeners = [{"name": _section(p), "port": p.port, "protocol": p.protocol} for p in ports]
    return {
        "clientRef": {"namespace": namespace, "name": balancer.name, "uid": balancer.name},
        "display-name": balancer.spec.display_name,
        "public-ports": [port.wire() for port in ports],
        "gateway": {"gatewayClassName": COMPATIBILITY, "listeners": listeners},
    }


def routes_of(balancer: LoadBalancer) -> list[GWRoute]:
    """A route for each TCP port: others are not served, and its gateway's conditions say so."""
    return [_route(balancer, port) for port in balancer.spec.public_ports if port.protocol == _TCP]


def endpoint_name(account: str, balancer: str, spec: RemoteEndpointSpec) -> str:
    """The name of an endpoint, which is another for one that differs in anything."""
    ip = str(spec.address).replace(".", "-").replace(":", "-").strip("-")[:_IP_MAX].rstrip("-")
    whole = spec.model_copy(update={"load_balancer": balancer}).model_dump_json()
    distinct = blake2b(f"{account}\0{whole}".encode(), digest_size=8).hexdigest()
    return f"{ip}-{spec.port.port}-{spec.port.protocol.lower()}-{distinct}"


def slice_of(endpoint: RemoteEndpoint, balancer: LoadBalancer) -> GWEndpointSlice:
    """The slice of an endpoint; one that is not served has none in it."""
    spec = endpoint.spec
    client = ClientRef(cluster_id=spec.cluster, name=balancer.spec.display_name, uid=endpoint.name)
    served: dict[str, Any] = {}
    port = _served_port(balancer.spec.public_ports, spec.port)
    node = spec.node_address
    if node is not None and port is not None and port.protocol == _TCP:
        served = {
            "endpoints": (Endpoint(addresses=(str(spec.address),), node_name=str(node)),),
            # A port whose name is a number serves that port of the Service.
            "ports": (EndpointPort(name=str(port.port), port=spec.port.port),),
            "node_addresses": {str(node): node},
        }
    return GWEndpointSlice(
        metadata=Metadata(name=endpoint.name, namespace=endpoint.account),
        spec=GWEndpointSliceSpec(
            client_ref=client,
            parent_ref=client.model_copy(update={"uid": balancer.name}),
            address_type="IPv6" if spec.address.version == 6 else "IPv4",
            **served,
        ),
    )


def balancer_conditions(balancer: LoadBalancer, proxy: GWProxy | None) -> list[Condition]:
    """Those of its gateway, and that what it asks for besides is not served."""
    if proxy is None:
        text = "its gateway is gone or cannot be read: delete the service, and announce it again"
        return [observed(balancer, "Programmed", "False", "NoGateway", text)]
    found = list(proxy.status.conditions)
    if not balancer.spec.true_ingress:
        text = "true-ingress false is not served: packets reach endpoints through tunnels only"
        others = [condition for condition in found if condition.type != "Accepted"]
        return [*others, observed(balancer, "Accepted", "False", "UnsupportedValue", text)]
    return found


def endpoint_condition(
    endpoint: RemoteEndpoint, balancer: LoadBalancer | None, *, has_slice: bool
) -> Condition:
    """Whether the endpoint is served, and if not why; `has_slice`: what is served of it is there."""
    port = endpoint.spec.port
    served = _served_port(balancer.spec.public_ports if balancer else (), port)
    if endpoint.spec.node_address is None:
        reason = "UnsupportedValue"
        text = "it has no node-address: packets reach endpoints through tunnels to their nodes only"
    elif port.protocol != _TCP:
        reason, text = "UnsupportedProtocol", f"{port.protocol} is not served, only {_TCP}"
    elif served is None:
        reason = "NoMatchingPort"
        text = (
            f"none of the service's public ports is that of port {port.name!r} ({port.port}): give it the "
            "name of one of them"
        )
    elif not has_slice:
        reason = "NoSlice"
        text = "what is served of it is gone or cannot be read: delete the endpoint, and announce it again"
    else:
        return observed(endpoint, "Accepted", "True", "Accepted")
    return observed(endpoint, "Accepted", "False", reason, text)


def _served_port(ports: Sequence[ServicePort], wanted: RemotePort) -> ServicePort | None:
    alike = [port for port in ports if port.protocol == wanted.protocol]
    named = [port for port in alike if wanted.name and port.name == wanted.name]
    if named or len(alike) == 1:
        return (named or alike)[0]
    return next((port for port in alike if port.port == wanted.port), None)


def _section(port: ServicePort) -> str:
    return f"{port.protocol.lower()}-{port.port}"


def _route(balancer: LoadBalancer, port: ServicePort) -> GWRoute:
    name = f"{balancer.name}.{port.port}"
    backend = BackendRef(kind="Service", name=balancer.name, port=port.port)
    tcp = TCPRouteSpec(
        parent_refs=(ParentReference(name=balancer.name, section_name=_section(port)),),
        rules=(TCPRouteRule(backend_refs=(backend,)),),
    )
    ref = ClientRef(name=balancer.spec.display_name, uid=name)
    return GWRoute(
        metadata=Metadata(name=name, namespace=balancer.account), spec=GWRouteSpec(client_ref=ref, tcp=tcp)
    )
