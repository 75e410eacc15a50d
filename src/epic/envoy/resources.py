# SPDX-License-Identifier: Apache-2.0
"""A gateway's resources, built by the code and rendered of templates, checked; a revision names the set."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from epic.envoy.builders.clusters import SHAPE, build_clusters
from epic.envoy.builders.listeners import build_listeners
from epic.envoy.builders.routes import RoutePieces
from epic.envoy.builders.shapes import shape_of
from epic.envoy.policy import violations
from epic.envoy.templating import Kind, Task, load, tasks, title
from epic.errors import Invalid
from epic.gatewayapi.names import is_reserved
from epic.gatewayapi.routing import Routing
from epic.model.resources import EnvoyResources

M = TypeVar("M", bound=Message)
Document = tuple[Task, dict[str, object]]

_TYPES: dict[Kind, type[Message]] = {"cluster": Cluster, "listener": Listener, "route": RouteConfiguration}
_MESSAGES = 5


@dataclass(frozen=True)
class Bundle:
    """All Envoy resources of a gateway but the endpoints, by name; the same for all its instances."""

    revision: str
    clusters: Mapping[str, Cluster]
    listeners: Mapping[str, Listener]
    routes: Mapping[str, RouteConfiguration]
    shapes: frozenset[str] | None = None
    """Of all that it is made of; None where it holds what a template rendered, or is read from a file."""


def build(routing: Routing, templates: EnvoyResources) -> Bundle:
    """Make and check everything. Raises Invalid with the route's or template's name and the place."""
    documents = [(task, body) for task in tasks(routing, templates) if (body := load(task)) is not None]
    return assemble(routing, templates, documents, RoutePieces())


def assemble(
    routing: Routing, templates: EnvoyResources, documents: Iterable[Document], pieces: RoutePieces
) -> Bundle:
    """Put together what templates rendered and what the code builds: all of a kind that has no templates.

    `pieces` are those of the gateway. Raises Invalid.
    """
    found = _parse_all(routing, documents)
    clusters, listeners = _typed(found["cluster"], Cluster), _typed(found["listener"], Listener)
    routes, shapes = _typed(found["route"], RouteConfiguration), frozenset[str]()
    if templates.clusters:
        _check_clusters(routing, clusters)
    else:
        clusters = build_clusters(routing.clusters)
    if templates.listeners:
        _check_addresses(routing, listeners)
    else:
        listeners = build_listeners(routing)
    if not templates.routes:
        routes, shapes = pieces.build(routing.ports)
    routes = _used_routes(listeners, routes)
    shapes = shapes.union(map(shape_of, listeners.values()), [SHAPE] if clusters else [])
    rendered = templates.clusters or templates.listeners or templates.routes
    revision = _revision([clusters, listeners, routes])
    return Bundle(revision, clusters, listeners, routes, None if rendered else shapes)


def _parse_all(routing: Routing, documents: Iterable[Document]) -> dict[Kind, dict[str, Message]]:
    """What templates rendered, by kind and name. Raises Invalid."""
    found: dict[Kind, dict[str, Message]] = {"cluster": {}, "listener": {}, "route": {}}
    own = _own_names(routing)
    for task, body in documents:
        message = _parse(task, body)
        name = str(message.name)  # type: ignore[attr-defined]
        if not name or name in found[task.kind]:
            problem = f"the name {name!r} a second time" if name else "no name"
            raise Invalid(f"{title(task)} renders {problem}; every {task.kind} needs its own")
        if is_reserved(name) and name not in own[task.kind]:
            variable = "ClusterName" if task.kind == "cluster" else "PortName"
            raise Invalid(
                f"{title(task)} names a {task.kind} {name!r}; such names are reserved:"
                f" use {variable}, or another name"
            )
        found[task.kind][name] = message
    return found


def bound_to(cluster: Cluster, inside: IPv4Address, inside6: IPv6Address) -> Cluster:
    """The cluster for one instance: bound to the instance's inside addresses."""
    bound = Cluster()
    bound.CopyFrom(cluster)
    config = bound.upstream_bind_config
    for other in ("additional_source_addresses", "extra_source_addresses", "local_address_selector"):
        config.ClearField(other)
    config.source_address.address, config.source_address.port_value = str(inside), 0
    second = config.extra_source_addresses.add().address
    second.address, second.port_value = str(inside6), 0
    return bound


def route_names(listener: Listener) -> Iterator[str]:
    """The route configurations that the listener asks for by RDS."""
    for _, manager in connection_managers(listener):
        if manager.HasField("rds"):
            yield manager.rds.route_config_name


def connection_managers(listener: Listener) -> Iterator[tuple[Message, HttpConnectionManager]]:
    """The listener's HTTP connection managers, each with the `Any` that holds it."""
    chains = [
        *listener.filter_chains,
        *([listener.default_filter_chain] if listener.HasField("default_filter_chain") else []),
    ]
    for chain in chains:
        for network_filter in chain.filters:
            manager = HttpConnectionManager()
            if network_filter.typed_config.Unpack(manager):
                yield network_filter.typed_config, manager


def _parse(task: Task, body: dict[str, object]) -> Message:
    message = _TYPES[task.kind]()
    try:
        ParseDict(body, message)
    except (ParseError, ValueError, TypeError, AttributeError) as error:
        raise Invalid(f"{title(task)}: {' '.join(str(error).split())}") from error
    broken = violations(message)
    if broken:
        raise Invalid(f"{title(task)}: {'; '.join(broken[:_MESSAGES])}")
    return message


def _typed(messages: Mapping[str, Message], kind: type[M]) -> dict[str, M]:
    return {name: m for name, m in sorted(messages.items()) if isinstance(m, kind)}


def _check_addresses(routing: Routing, listeners: Mapping[str, Listener]) -> None:
    allowed = {(str(host), port.number) for host in routing.addresses for port in routing.ports}
    taken = set()
    for name, listener in listeners.items():
        addresses = [listener.address, *(extra.address for extra in listener.additional_addresses)]
        for address in addresses:
            bound = (address.socket_address.address, address.socket_address.port_value)
            if bound not in allowed:
                wanted = ", ".join(itertools.starmap(_socket, sorted(allowed)))
                raise Invalid(f"Listener {name!r} binds {_socket(*bound)}; it may bind only {wanted}")
            taken.add(bound)
    served = {number for _, number in taken}
    left = sorted(bound for bound in allowed - taken if bound[1] in served)
    if left:
        # Its clients would be reset, and nobody told.
        raise Invalid(
            f"no Listener binds {_socket(*left[0])}, but one binds port {left[0][1]} of the gateway's other "
            "address; bind both PublicAddress and AltAddress, by additional_addresses"
        )


def _socket(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _own_names(routing: Routing) -> dict[Kind, set[str]]:
    """The names that stand for something of the gateway."""
    ports = {port.name for port in routing.ports}
    return {"cluster": {cluster.name for cluster in routing.clusters}, "listener": ports, "route": ports}


def _check_clusters(routing: Routing, clusters: Mapping[str, Cluster]) -> None:
    known = {cluster.name for cluster in routing.clusters}
    for name, cluster in clusters.items():
        if cluster.type == Cluster.EDS and (name not in known or cluster.eds_cluster_config.service_name):
            raise Invalid(
                f"Cluster {name!r} of type EDS must have ClusterName as its name, and no service_name"
            )


def _used_routes(
    listeners: Mapping[str, Listener], routes: Mapping[str, RouteConfiguration]
) -> dict[str, RouteConfiguration]:
    """Only what a listener asks for: Envoy would never acknowledge the others."""
    used = {name for listener in listeners.values() for name in route_names(listener)}
    missing = sorted(used - routes.keys())
    if missing:
        raise Invalid(
            f"The listeners ask for route configurations that no template renders: {', '.join(missing)}"
        )
    return {name: route for name, route in routes.items() if name in used}


def _revision(parts: Iterable[Mapping[str, Message]]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        for name, message in part.items():
            for piece in (name.encode(), message.SerializeToString(deterministic=True)):
                digest.update(len(piece).to_bytes(4, "big") + piece)
        digest.update(b"\0\0\0\0")
    return digest.hexdigest()
