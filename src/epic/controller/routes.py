# SPDX-License-Identifier: Apache-2.0
"""Routes: which Gateways they attach to, and their spec with EPIC's names in it. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from epic.controller.classes import client_ref, object_uid
from epic.controller.desired import EpicConnection, Item
from epic.controller.objects import (
    GATEWAY_GROUP,
    Gateway,
    Namespace,
    Objects,
    Problem,
    Ref,
    ReferenceGrant,
    Route,
    Service,
    Unseen,
)
from epic.controller.permissions import admits, may_be_unseen, permits, selects_by_labels
from epic.gatewayapi.attachment import UNSUPPORTED, attach
from epic.gatewayapi.listeners import judge
from epic.model.base import Metadata
from epic.model.gatewayapi import BackendRef, ParentReference
from epic.model.resources import GWRoute, GWRouteSpec

_NOT_ALLOWED = "NotAllowedByListeners"
_GATEWAY_GROUPS = (GATEWAY_GROUP, "gateway.networking.x-k8s.io")
_PARENT = f"kind {Gateway.kind} (group {GATEWAY_GROUP})"
References = Mapping[Ref, Set[EpicConnection]]


class PlacedGateway(NamedTuple):
    """A Gateway and what becomes of it on EPIC."""

    gateway: Gateway
    item: Item


@dataclass
class RouteResult:
    """What a route is to be on EPIC; which Services it refers to, by account. `held`: what is there stays."""

    items: tuple[Item, ...] = ()
    references: dict[Ref, set[EpicConnection]] = field(default_factory=lambda: defaultdict(set))
    problems: list[Problem] = field(default_factory=list)
    held: bool = False
    unsure: bool = False
    """Whether what refuses a part of it may be permitted by something that cannot be seen."""
    doubted: set[Ref] = field(default_factory=set)
    """The Services for which it is so."""

    def problem(self, route: Route, reason: str, message: str) -> None:
        """Note what is wrong with a route."""
        self.problems.append(route.problem(reason, message))


def translate_route(
    route: Route, gateways: Mapping[Ref, PlacedGateway], unplaced: Set[Ref], objects: Objects, unseen: Unseen
) -> RouteResult:
    """A route for every account in which it has a Gateway that takes it; `unplaced` Gateways wait."""
    result = RouteResult()
    _note_other_parents(route, result)
    by_connection: dict[EpicConnection, list[PlacedGateway]] = defaultdict(list)
    for parent in sorted(parents_of(route)):
        if parent in gateways:
            by_connection[gateways[parent].item.connection].append(gateways[parent])
        elif parent in unplaced:
            # Nothing is known of a parent at present; what is on EPIC stays.
            result.held = True
        elif objects.find(Gateway, parent.namespace, parent.name) is None:
            result.problem(route, "NoMatchingParent", f"spec.parentRefs: there is no {parent}")
            result.held |= unseen.hides(parent)
    for connection, placed in by_connection.items():
        item = _route(route, connection, placed, objects, unseen, result)
        if item is not None:
            result.items += (item,)
    if result.unsure:
        result.items, result.held = (), True
    return result


def _note_other_parents(route: Route, result: RouteResult) -> None:
    others = [ref for ref in route.spec.parent_refs if _parent_ref(route, ref) is None]
    if kinds := sorted({ref.kind or Gateway.kind for ref in others}):
        text = f"spec.parentRefs: parents of kind {', '.join(kinds)} are not served, only those of {_PARENT}"
        is_of_mesh = len(others) < len(route.spec.parent_refs) and not any(map(_is_of_gateway_api, others))
        result.problems.append(route.problem(UNSUPPORTED, text)._replace(is_warning=is_of_mesh))


def _is_of_gateway_api(ref: ParentReference) -> bool:
    """Whether its kind is one that gateways are asked for by, and not, as a Service, a mesh."""
    return ref.group is None or ref.group in _GATEWAY_GROUPS


def parents_of(route: Route) -> set[Ref]:
    """The Gateways that a route names."""
    return {p for ref in route.spec.parent_refs if (p := _parent_ref(route, ref)) is not None}


def _parent_ref(route: Route, ref: ParentReference) -> Ref | None:
    if (ref.group or GATEWAY_GROUP, ref.kind or Gateway.kind) != (GATEWAY_GROUP, Gateway.kind):
        return None
    return Ref(Gateway.kind, ref.namespace or route.metadata.namespace, ref.name)


def _route(
    route: Route,
    connection: EpicConnection,
    placed: list[PlacedGateway],
    objects: Objects,
    unseen: Unseen,
    result: RouteResult,
) -> Item | None:
    uid = object_uid(connection.cluster, route.ref, route.metadata.uid)
    spec: dict[str, Any] = {**route.content["spec"]}
    spec["parentRefs"] = list(_accepted_parents(route, uid, placed, objects, unseen, result))
    if not spec["parentRefs"]:
        return None
    if "rules" in spec:
        spec["rules"] = [_rule(rule, route, connection, objects, unseen, result) for rule in spec["rules"]]
    section = _section(route)
    return Item(
        connection=connection,
        collection="routes",
        uid=uid,
        ref=route.ref,
        source=route.source,
        spec={"clientRef": client_ref(connection.cluster, route, uid), section: spec},
    )


def _accepted_parents(
    route: Route,
    uid: str,
    placed: list[PlacedGateway],
    objects: Objects,
    unseen: Unseen,
    result: RouteResult,
) -> Iterator[dict[str, Any]]:
    by_ref = {p.gateway.ref: p for p in placed}
    for ref in route.spec.parent_refs:
        found = by_ref.get(_parent_ref(route, ref) or Ref("", "", ""))
        if found is None:
            continue
        fault = _refused(route, uid, ref, found, objects)
        if fault is not None:
            result.problem(route, *fault)
            by_labels = any(map(selects_by_labels, found.gateway.spec.listeners))
            hidden = may_be_unseen(unseen, Namespace.kind, route.metadata.namespace)
            result.unsure |= fault[0] == _NOT_ALLOWED and by_labels and hidden
            continue
        section = {"sectionName": ref.section_name} if ref.section_name is not None else {}
        port = {"port": ref.port} if ref.port is not None else {}
        yield {"name": found.item.gateway.uid, **section, **port}


def _refused(
    route: Route, uid: str, ref: ParentReference, placed: PlacedGateway, objects: Objects
) -> tuple[str, str] | None:
    gateway = placed.gateway
    namespace = route.metadata.namespace
    open_listeners = [x for x in gateway.spec.listeners if admits(x, namespace, gateway, objects)]
    served, _ = judge(open_listeners)
    spec = GWRouteSpec.model_validate({"clientRef": {"uid": uid}, _section(route): route.spec})
    stored = GWRoute(metadata=Metadata(name=uid), spec=spec)
    attachment = attach(stored, ref, gateway.spec.listeners, served)
    if attachment.accepted:
        return None
    closed = [x.name for x in gateway.spec.listeners if x not in open_listeners]
    hint = (
        f" Listeners {', '.join(closed)} do not admit namespace {namespace!r} (allowedRoutes.namespaces)."
        if closed and attachment.reason == _NOT_ALLOWED
        else ""
    )
    return attachment.reason, f"not attached to {gateway.ref}: {attachment.message}{hint}"


def _section(route: Route) -> str:
    """Where its spec is in that of a GWRoute."""
    return route.kind.removesuffix("Route").lower()


def _rule(
    rule: dict[str, Any],
    route: Route,
    connection: EpicConnection,
    objects: Objects,
    unseen: Unseen,
    result: RouteResult,
) -> dict[str, Any]:
    if "backendRefs" not in rule:
        return rule
    backends = [_backend(ref, route, connection, objects, unseen, result) for ref in rule["backendRefs"]]
    return {**rule, "backendRefs": backends}


def _backend(
    content: dict[str, Any],
    route: Route,
    connection: EpicConnection,
    objects: Objects,
    unseen: Unseen,
    result: RouteResult,
) -> dict[str, Any]:
    ref = BackendRef.model_validate(content)
    rest = {key: value for key, value in content.items() if key != "namespace"}
    if (ref.kind or Service.kind) != Service.kind or ref.group:
        result.problem(
            route, "InvalidKind", f"backend {ref.kind} {ref.name!r} is no Service of the core group"
        )
        return rest
    namespace = ref.namespace or route.metadata.namespace
    target = Ref(Service.kind, namespace, ref.name)
    if namespace != route.metadata.namespace and not permits(objects, route, target):
        text = (
            f"backend {target} is in another namespace, and no ReferenceGrant there lets "
            f"{route.kind}s of {route.metadata.namespace!r} refer to it"
        )
        result.problem(route, "RefNotPermitted", text)
        if may_be_unseen(unseen, ReferenceGrant.kind, namespace):
            result.unsure = True
            result.doubted.add(target)
        return {**rest, "name": _nothing(connection, target, "NotPermitted")}
    result.references[target].add(connection)
    service = objects.find(Service, namespace, ref.name)
    if service is not None and ref.port is not None and service.spec.ports:
        ports = [port.port for port in service.spec.ports]
        if ref.port not in ports:
            text = f"backend {target} has no port {ref.port}; it has {', '.join(map(str, ports))}"
            result.problem(route, "BackendNotFound", text)
            return {**rest, "name": _nothing(connection, target, "NoSuchPort")}
    return {**rest, "name": object_uid(connection.cluster, target, service.metadata.uid if service else "")}


def _nothing(connection: EpicConnection, target: Ref, why: str) -> str:
    """A name that no Service can have: EPIC answers 500 for this share of the requests."""
    return object_uid(connection.cluster, target._replace(kind=why))
