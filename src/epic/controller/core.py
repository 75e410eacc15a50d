# SPDX-License-Identifier: Apache-2.0
"""From a client's objects to what is to exist on EPIC. Pure; a change costs what hangs on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Set
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
from epic.controller.objects import (
    CONFIG_GROUP,
    NOTHING_UNSEEN,
    ROUTES,
    ClientObject,
    EndpointSlice,
    Gateway,
    GatewayClass,
    GatewayClassConfig,
    Namespace,
    Objects,
    Problem,
    Ref,
    ReferenceGrant,
    Route,
    Service,
    Unseen,
)
from epic.controller.permissions import deciding_on, namespace_ref
from epic.controller.routes import PlacedGateway, RouteResult, parents_of, translate_route
from epic.controller.slices import SliceResult, service_of, translate_slice
from epic.kinds.unknown_fields import unknown_fields
from epic.model.gatewayapi import Listener
from epic.model.values.naming import is_object_name

IGNORED = "UnknownField"
"""The reason of a problem that is about fields only: the object is on EPIC without them."""
SHARING_KEY = f"{CONFIG_GROUP}/sharing-key"

_CLASS_KINDS = {GatewayClass.kind, GatewayClassConfig.kind}
_TRANSPORT = {"HTTP": "TCP", "HTTPS": "TCP", "TLS": "TCP", "TCP": "TCP", "UDP": "UDP"}


def translate(objects: Objects, settings: CoreSettings) -> Desired:
    """All that the objects ask of EPIC, and what is wrong with them."""
    return Translator(objects, settings).update(None)


def ignored_fields(obj: ClientObject) -> list[str]:
    """The fields of a Gateway's or a route's spec that EPIC does not know, sorted; of others none matters."""
    if isinstance(obj, Gateway | Route):
        return unknown_fields(type(obj.spec), obj.content["spec"], "spec")
    return []


class Translator:
    """Translates objects, and again what hangs on those that change."""

    def __init__(self, objects: Objects, settings: CoreSettings) -> None:
        self._objects = objects
        self._settings = settings
        self._unseen = NOTHING_UNSEEN
        self._connections: dict[Ref, EpicConnection] = {}
        self._problems: list[Problem] = []
        self._gateways: dict[Ref, PlacedGateway] = {}
        self._unplaced: dict[Ref, Problem] = {}
        self._routes: dict[Ref, RouteResult] = {}
        self._slices: dict[Ref, SliceResult] = {}
        self._troubled: dict[Ref, RouteResult | SliceResult] = {}
        self._references: dict[Ref, Counter[EpicConnection]] = {}
        self._ignored: dict[Ref, Problem] = {}
        self._routes_of_gateway = Index()
        self._routes_of_service = Index()
        self._routes_of_namespace = Index()
        self._slices_of_service = Index()
        self._told: Desired | None = None

    def update(self, changed: Set[Ref] | None, unseen: Unseen = NOTHING_UNSEEN) -> Desired:
        """All that the objects ask for now; `changed` are others than last time, None if all may be."""
        if self._told is not None and changed is not None and not changed and unseen == self._unseen:
            return self._told
        if changed is None or any(ref.kind in _CLASS_KINDS for ref in changed):
            changed = {obj.ref for obj in self._objects.everything()} | self._known()
            self._connect()
        elif unseen != self._unseen:
            # Routes may wait for Gateways that cannot be seen.
            changed = changed | {ref for ref, result in self._routes.items() if result.problems}
        self._unseen = unseen
        gateways = _of_kinds(changed, Gateway)
        for ref in sorted(gateways):
            self._place(ref)
        services = _of_kinds(changed, Service)
        routes = _of_kinds(changed, *ROUTES)
        routes |= self._routes_of_gateway.of(gateways) | self._routes_of_service.of(services)
        grants = {namespace_ref(ref.namespace) for ref in _of_kinds(changed, ReferenceGrant)}
        routes |= self._routes_of_namespace.of(_of_kinds(changed, Namespace) | grants)
        for ref in sorted(routes):
            services |= self._route(ref)
        for ref in sorted(_of_kinds(changed, EndpointSlice) | self._slices_of_service.of(services)):
            self._slice(ref)
        for ref in gateways | routes:
            self._look_for_ignored(ref)
        self._told = self._desired()
        return self._told

    def _known(self) -> set[Ref]:
        return self._gateways.keys() | self._unplaced.keys() | self._routes.keys() | self._slices.keys()

    def _connect(self) -> None:
        self._problems = []
        self._connections = _connections(self._objects, self._settings, self._problems)

    def _place(self, ref: Ref) -> None:
        self._gateways.pop(ref, None)
        self._unplaced.pop(ref, None)
        gateway = self._objects.get(ref)
        if isinstance(gateway, Gateway):
            match _place(gateway, self._objects, self._settings):
                case PlacedGateway() as placed:
                    self._gateways[ref] = placed
                case Problem() as problem:
                    self._unplaced[ref] = problem

    def _route(self, ref: Ref) -> set[Ref]:
        """Translate a route; returns the Services that it refers to or did, where that has changed."""
        self._troubled.pop(ref, None)
        old = self._routes.pop(ref, RouteResult()).references
        new: dict[Ref, set[EpicConnection]] = {}
        route = self._objects.get(ref)
        parents: set[Ref] = set()
        namespaces: set[Ref] = set()
        if isinstance(route, Route):
            parents, namespaces = parents_of(route), set(deciding_on(route))
            result = translate_route(
                route, self._gateways, self._unplaced.keys(), self._objects, self._unseen
            )
            self._routes[ref], new = result, result.references
            self._note_trouble(ref, result)
        self._routes_of_gateway.put(ref, parents)
        self._routes_of_namespace.put(ref, namespaces)
        self._routes_of_service.put(ref, new.keys())
        changed = {s for s in old.keys() | new.keys() if old.get(s) != new.get(s)}
        for service in changed:
            counts = self._references.setdefault(service, Counter())
            counts.subtract(old.get(service, ()))
            counts.update(new.get(service, ()))
            self._references[service] = +counts
            if not self._references[service]:
                del self._references[service]
        return changed

    def _slice(self, ref: Ref) -> None:
        self._slices.pop(ref, None)
        self._troubled.pop(ref, None)
        slice_ = self._objects.get(ref)
        service = None
        if isinstance(slice_, EndpointSlice):
            service = service_of(slice_)
            references = {service: self._references.get(service, Counter()).keys()} if service else {}
            result = translate_slice(slice_, self._objects, references, self._connections, self._settings)
            self._slices[ref] = result
            self._note_trouble(ref, result)
        self._slices_of_service.put(ref, {service} if service else ())

    def _look_for_ignored(self, ref: Ref) -> None:
        self._ignored.pop(ref, None)
        obj = self._objects.get(ref)
        is_sent = ref in self._gateways or bool(self._routes.get(ref, RouteResult()).items)
        if obj is not None and is_sent and (fields := ignored_fields(obj)):
            what = f"{', '.join(fields)} {'is' if len(fields) == 1 else 'are'} not known and ignored"
            self._ignored[ref] = obj.problem(IGNORED, what)

    def _note_trouble(self, ref: Ref, result: RouteResult | SliceResult) -> None:
        if result.problems or result.held:
            self._troubled[ref] = result

    def _desired(self) -> Desired:
        placed = [self._gateways[ref] for ref in sorted(self._gateways)]
        wrong = (problem for result in self._troubled.values() for problem in result.problems)
        connections = [*self._connections.values(), *(g.item.connection for g in placed)]
        # Slices of a Service that may be permitted stay with the routes that refer to it.
        routes = (result for result in self._troubled.values() if isinstance(result, RouteResult))
        doubted = {service for result in routes for service in result.doubted}
        held = {ref for ref, result in self._troubled.items() if result.held}
        return Desired(
            proxies=tuple(one.item for one in placed),
            slices=tuple(item for result in self._slices.values() for item in result.items),
            routes=tuple(item for result in self._routes.values() for item in result.items),
            connections=tuple(dict.fromkeys(connections)),
            problems=(*self._unplaced.values(), *self._problems, *wrong, *self._ignored.values()),
            held=frozenset(self._unplaced) | held | self._slices_of_service.of(doubted),
        )


class Index:
    """Which objects refer to which."""

    def __init__(self) -> None:
        self._to: dict[Ref, frozenset[Ref]] = {}
        self._from: dict[Ref, set[Ref]] = defaultdict(set)

    def put(self, ref: Ref, targets: Iterable[Ref]) -> None:
        """The object refers to these now."""
        for target in self._to.pop(ref, ()):
            self._from[target].discard(ref)
            if not self._from[target]:
                del self._from[target]
        if found := frozenset(targets):
            self._to[ref] = found
            for target in found:
                self._from[target].add(ref)

    def of(self, targets: Iterable[Ref]) -> set[Ref]:
        """All that refer to one of these."""
        return {ref for target in targets for ref in self._from.get(target, ())}


def _of_kinds(refs: Iterable[Ref], *kinds: type[ClientObject]) -> set[Ref]:
    names = {kind.kind for kind in kinds}
    return {ref for ref in refs if ref.kind in names}


def _connections(
    objects: Objects, settings: CoreSettings, problems: list[Problem]
) -> dict[Ref, EpicConnection]:
    found: dict[Ref, EpicConnection] = {}
    for config in objects.all(GatewayClassConfig):
        match class_of_config(config, settings):
            case Class(connection, _):
                found[config.ref] = connection
            case ClassFault(reason, message):
                problems.append(config.problem(reason, message))
    return found


def _place(gateway: Gateway, objects: Objects, settings: CoreSettings) -> PlacedGateway | Problem | None:
    found = class_of(gateway, objects, settings)
    match found:
        case None:
            return None
        case ClassFault(reason, message):
            return gateway.problem(reason, message)
    key = gateway.metadata.annotations.get(SHARING_KEY, "")
    if key and not is_object_name(key):
        text = (
            f"annotation {SHARING_KEY}: {key!r} is no name: 1 to 63 letters, digits and inner '-', '_', '.'"
        )
        return gateway.problem("Invalid", text)
    for index, listener in enumerate(gateway.spec.listeners):
        if listener.protocol not in _TRANSPORT:
            text = (
                f"spec.listeners.{index}.protocol: {listener.protocol!r} is none of {', '.join(_TRANSPORT)}"
            )
            return gateway.problem("UnsupportedProtocol", text)
    cluster = found.connection.cluster
    uid = object_uid(cluster, gateway.ref, gateway.metadata.uid)
    item = Item(
        connection=found.connection,
        collection="members" if key else "proxies",
        uid=uid,
        ref=gateway.ref,
        source=gateway.source,
        group=found.template,
        spec={
            "clientRef": client_ref(cluster, gateway, uid),
            "display-name": gateway.metadata.name,
            "public-ports": _public_ports(gateway.spec.listeners),
            "gateway": gateway.content["spec"],
            **({"sharing-key": key} if key else {}),
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
