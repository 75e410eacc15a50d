# SPDX-License-Identifier: Apache-2.0
"""Routes and virtual hosts, each encoded once for as long as it stays as it is.

Envoy's own rules of what they may hold are kept here, so that no process has to be started to learn of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from envoy.config.route.v3.route_components_pb2 import (
    DirectResponseAction,
    HeaderMatcher,
    Route,
    RouteAction,
    RouteMatch,
    WeightedCluster,
)
from envoy.config.route.v3.route_components_pb2 import VirtualHost as EnvoyVirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.type.matcher.v3.string_pb2 import StringMatcher
from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from epic.envoy.builders.shapes import shape_of
from epic.errors import Invalid
from epic.gatewayapi.attached.sizes import LARGEST
from epic.gatewayapi.routing import HTTPRoute, Port, VirtualHost

_TOO_MUCH = f"The virtual hosts of a port have more than {LARGEST} bytes; use fewer hostnames or matches"

# Envoy's constraints of RouteMatch.path_separated_prefix, of HeaderMatcher.name and of VirtualHost.domains.
_PREFIX = re.compile(r"[^?#]+[^?#/]")
_HEADER = re.compile(r"[^\x00\n\r]+")

_NO_TIMEOUT = Duration()
_NOBODY = DirectResponseAction(status=500)


@dataclass(frozen=True)
class Piece:
    """A field that is encoded, and the shapes of what it holds."""

    encoded: bytes
    shapes: frozenset[str]


class _Host(NamedTuple):
    host: VirtualHost
    piece: Piece
    routes: Mapping[HTTPRoute, Piece]


class RoutePieces:
    """The virtual hosts of one gateway as they were built last, and their routes."""

    def __init__(self) -> None:
        self._hosts: dict[tuple[int, str], _Host] = {}

    def build(self, ports: Iterable[Port]) -> tuple[dict[str, RouteConfiguration], frozenset[str]]:
        """The route configurations of HTTP ports, by name and in order, and the shapes in them.

        Raises Invalid, with the route's name, for what Envoy would refuse, and for too much of it.
        """
        found: dict[str, RouteConfiguration] = {}
        shapes: set[str] = set()
        # What is not used this time is forgotten.
        turn = _Turn(self._hosts)
        for port in sorted(ports, key=lambda port: port.name):
            if port.protocol == "HTTP":
                head = RouteConfiguration(
                    name=port.name,
                    ignore_port_in_host_matching=True,
                    validate_clusters=BoolValue(value=False),
                )
                pieces = turn.hosts_of(port)
                encoded = b"".join([head.SerializeToString(), *(piece.encoded for piece in pieces)])
                found[port.name] = RouteConfiguration.FromString(encoded)
                shapes.add(shape_of(head))
                shapes.update(*(piece.shapes for piece in pieces))
        self._hosts = turn.hosts
        return found, frozenset(shapes)


class _Turn:
    """One time that all is built: what was built before is taken where it is the same."""

    def __init__(self, before: Mapping[tuple[int, str], _Host]) -> None:
        self._before = before
        self._routes: dict[HTTPRoute, Piece] = {}
        self.hosts: dict[tuple[int, str], _Host] = {}

    def hosts_of(self, port: Port) -> list[Piece]:
        """The virtual hosts of a port, as many as there may be: what is too much is not built first."""
        room, pieces = LARGEST, []
        for host in port.virtual_hosts:
            key = (port.number, host.hostname)
            if key in self.hosts:
                raise Invalid(f"The hostname {host.hostname!r} is there twice on port {port.number}")
            built = self._before.get(key)
            if built is None or built.host != host:
                routes = self._routes_of(host, built.routes if built else {}, room)
                built = _Host(host, encode_host(host, (routes[route] for route in host.routes)), routes)
            self.hosts[key] = built
            pieces.append(built.piece)
            room -= len(built.piece.encoded)
            if room < 0:
                raise Invalid(_TOO_MUCH)
        return pieces

    def _routes_of(
        self, host: VirtualHost, before: Mapping[HTTPRoute, Piece], room: int
    ) -> dict[HTTPRoute, Piece]:
        found: dict[HTTPRoute, Piece] = {}
        for route in host.routes:
            # A route may be for many hostnames.
            piece = before.get(route) or self._routes.get(route) or encode_route(route)
            found[route] = self._routes[route] = piece
            room -= len(piece.encoded)
            if room < 0:
                raise Invalid(_TOO_MUCH)
        return found


def encode_host(host: VirtualHost, routes: Iterable[Piece]) -> Piece:
    """A virtual host as a field of a route configuration."""
    if not _HEADER.fullmatch(host.hostname):
        raise Invalid(f"{host.hostname!r} cannot be a hostname")
    head = EnvoyVirtualHost(name=host.name, domains=[host.hostname])
    pieces = list(routes)
    encoded = b"".join([head.SerializeToString(), *(piece.encoded for piece in pieces)])
    whole = RouteConfiguration(virtual_hosts=[EnvoyVirtualHost.FromString(encoded)])
    shapes = frozenset({shape_of(head)}.union(*(piece.shapes for piece in pieces)))
    return Piece(whole.SerializeToString(), shapes)


def encode_route(route: HTTPRoute) -> Piece:
    """A route as a field of a virtual host."""
    try:
        message = build_route(route)
    except UnicodeEncodeError as error:
        raise Invalid(f"Route {route.name!r} has text that is no Unicode: {error.reason}") from error
    whole = EnvoyVirtualHost(routes=[message])
    return Piece(whole.SerializeToString(), frozenset({shape_of(message)}))


def build_route(route: HTTPRoute) -> Route:
    """One match and its action. Raises Invalid where Envoy would refuse it."""
    built = Route(name=route.name, match=_match(route))
    if route.backends:
        built.route.CopyFrom(_action(route))
    else:
        built.direct_response.CopyFrom(_NOBODY)
    return built


def _action(route: HTTPRoute) -> RouteAction:
    shares = [
        WeightedCluster.ClusterWeight(name=share.cluster, weight=UInt32Value(value=share.weight))
        for share in route.backends
    ]
    return RouteAction(
        timeout=_NO_TIMEOUT,
        cluster_not_found_response_code=RouteAction.INTERNAL_SERVER_ERROR,
        weighted_clusters=WeightedCluster(clusters=shares),
    )


def _match(route: HTTPRoute) -> RouteMatch:
    match = RouteMatch()
    if route.path_type == "Exact":
        match.path = route.path
    elif route.path == "/":
        match.prefix = route.path
    elif _PREFIX.fullmatch(route.path):
        match.path_separated_prefix = route.path
    else:
        raise Invalid(f"Route {route.name!r}: {route.path!r} cannot be the prefix of a path")
    for header in route.headers:
        if not _HEADER.fullmatch(header.name):
            raise Invalid(f"Route {route.name!r}: {header.name!r} cannot be the name of a header")
        match.headers.append(HeaderMatcher(name=header.name, string_match=StringMatcher(exact=header.value)))
    return match
