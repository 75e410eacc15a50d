# SPDX-License-Identifier: Apache-2.0
"""What crosses namespaces: listeners admit by the labels of namespaces, ReferenceGrants permit. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from epic.controller.objects import (
    GATEWAY_GROUP,
    Gateway,
    Namespace,
    Objects,
    Ref,
    Route,
    Unseen,
)
from epic.gatewayapi.namespaces import NAME_LABEL, namespaces_from, selector_of
from epic.model.gatewayapi import Listener


def admits(listener: Listener, namespace: str, gateway: Gateway, objects: Objects) -> bool:
    """Whether a listener takes routes of the namespace; by a selector that is not understood none."""
    match namespaces_from(listener):
        case "All":
            return True
        case "Selector":
            selector = selector_of(listener)
            return selector is not None and selector.matches(_labels(namespace, objects))
        case "Same":
            return namespace == gateway.metadata.namespace
        case _:
            return False


def selects_by_labels(listener: Listener) -> bool:
    """Whether labels of namespaces decide whose routes a listener takes."""
    return namespaces_from(listener) == "Selector"


def permits(objects: Objects, route: Route, target: Ref) -> bool:
    """Whether a ReferenceGrant in the namespace of a Service lets the route refer to it."""
    wanted = (GATEWAY_GROUP, route.kind, route.metadata.namespace)
    return any(
        any((source.group, source.kind, source.namespace) == wanted for source in grant.spec.sources)
        and any(
            (to.group, to.kind) == ("", target.kind) and to.name in (None, target.name)
            for to in grant.spec.to
        )
        for grant in objects.grants(target.namespace)
    )


def may_be_unseen(unseen: Unseen, kind: str, namespace: str) -> bool:
    """Whether there may be such an object, in the namespace or, of a Namespace, of that name."""
    return bool(unseen.files) or any(
        ref.kind == kind and namespace in (ref.namespace, ref.name) for ref in unseen.refs
    )


def deciding_on(route: Route) -> Iterator[Ref]:
    """The namespaces whose labels or grants decide on the route."""
    yield namespace_ref(route.metadata.namespace)
    for rule in route.spec.rules:
        for backend in rule.backend_refs:
            if backend.namespace not in (None, route.metadata.namespace):
                yield namespace_ref(str(backend.namespace))


def namespace_ref(name: str) -> Ref:
    """The Namespace object of that name."""
    return Ref(Namespace.kind, "", name)


def _labels(namespace: str, objects: Objects) -> dict[str, str]:
    found = objects.find(Namespace, "", namespace)
    return {**(found.metadata.labels if found is not None else {}), NAME_LABEL: namespace}
