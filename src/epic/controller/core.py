# SPDX-License-Identifier: Apache-2.0
"""From a client's objects to what is to exist on EPIC: a whole snapshot in, a whole result out. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from epic.controller.classes import (
    Class,
    ClassFault,
    CoreSettings,
    class_of,
    class_of_config,
    client_ref,
    object_uid,
)
from epic.controller.desired import Desired, EpicConnection, Item
from epic.controller.objects import CONFIG_GROUP, Gateway, GatewayClassConfig, Objects, Problem, Ref
from epic.controller.routes import PlacedGateway, translate_routes
from epic.controller.slices import translate_slices
from epic.model.gatewayapi import Listener
from epic.model.naming import is_object_name

SHARING_KEY = f"{CONFIG_GROUP}/sharing-key"

_TRANSPORT = {"HTTP": "TCP", "HTTPS": "TCP", "TLS": "TCP", "TCP": "TCP", "UDP": "UDP"}


def translate(objects: Objects, settings: CoreSettings) -> Desired:
    """All that the objects ask of EPIC, and what is wrong with them."""
    problems: list[Problem] = []
    gateways = {}
    held = set()
    for gateway in objects.all(Gateway):
        match _place(gateway, objects, settings):
            case PlacedGateway() as placed:
                gateways[gateway.ref] = placed
            case Problem() as problem:
                problems.append(problem)
                held.add(gateway.ref)
    routes = translate_routes(objects, gateways, frozenset(held))
    connections = _connections(objects, settings, problems)
    slices = translate_slices(objects, routes.references, connections, settings)
    return Desired(
        proxies=tuple(placed.item for placed in gateways.values()),
        slices=slices.items,
        routes=routes.items,
        connections=_unique([*connections.values(), *(g.item.connection for g in gateways.values())]),
        problems=(*problems, *routes.problems, *slices.problems),
        held=frozenset(held) | routes.held | slices.held,
    )


def _connections(
    objects: Objects, settings: CoreSettings, problems: list[Problem]
) -> dict[Ref, EpicConnection]:
    found: dict[Ref, EpicConnection] = {}
    for config in objects.all(GatewayClassConfig):
        match class_of_config(config, settings):
            case Class(connection, _):
                found[config.ref] = connection
            case ClassFault(reason, message):
                problems.append(Problem(config.source, str(config.ref), reason, message))
    return found


def _unique(connections: Iterable[EpicConnection]) -> tuple[EpicConnection, ...]:
    return tuple(dict.fromkeys(connections))


def _place(gateway: Gateway, objects: Objects, settings: CoreSettings) -> PlacedGateway | Problem | None:
    found = class_of(gateway, objects, settings)
    match found:
        case None:
            return None
        case ClassFault(reason, message):
            return _problem(gateway, reason, message)
    key = gateway.metadata.annotations.get(SHARING_KEY, "")
    if key and not is_object_name(key):
        text = (
            f"annotation {SHARING_KEY}: {key!r} is no name: 1 to 63 letters, digits and inner '-', '_', '.'"
        )
        return _problem(gateway, "Invalid", text)
    for index, listener in enumerate(gateway.spec.listeners):
        if listener.protocol not in _TRANSPORT:
            text = (
                f"spec.listeners.{index}.protocol: {listener.protocol!r} is none of {', '.join(_TRANSPORT)}"
            )
            return _problem(gateway, "UnsupportedProtocol", text)
    cluster = found.connection.cluster
    uid = key or object_uid(cluster, gateway.ref, gateway.metadata.uid)
    item = Item(
        connection=found.connection,
        collection="proxies",
        uid=uid,
        ref=gateway.ref,
        source=gateway.source,
        group=found.template,
        shared=bool(key),
        spec={
            "clientRef": client_ref(cluster, gateway, uid),
            "display-name": gateway.metadata.name,
            "public-ports": _public_ports(gateway.spec.listeners),
            "gateway": gateway.content["spec"],
        },
    )
    return PlacedGateway(gateway, item)


def _public_ports(listeners: Iterable[Listener]) -> list[dict[str, Any]]:
    ports: dict[tuple[str, int], dict[str, Any]] = {}
    for listener in listeners:
        protocol = _TRANSPORT[listener.protocol]
        port = {"name": listener.name, "protocol": protocol, "port": listener.port}
        ports.setdefault((protocol, listener.port), port)
    return list(ports.values())


def _problem(gateway: Gateway, reason: str, message: str) -> Problem:
    return Problem(gateway.source, str(gateway.ref), reason, message)
