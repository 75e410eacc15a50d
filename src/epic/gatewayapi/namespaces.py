# SPDX-License-Identifier: Apache-2.0
"""Of which namespaces a gateway's listeners take routes, as far as EPIC can tell. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from epic.model.gatewayapi import Listener
from epic.model.resources import GWProxy, GWRoute
from epic.model.values.naming import SOURCES_ANNOTATION

_BY_LABELS = (
    "routes are taken by the labels of their namespaces (allowedRoutes.namespaces, from: Selector), which "
    "EPIC does not know; use Same or All"
)
_UNKNOWN = "allowedRoutes.namespaces.from is neither Same nor All, and no route is taken"


def namespaces_from(listener: Listener) -> str:
    """`allowedRoutes.namespaces.from` of a listener; `Same` where it is not said, empty if it is no text."""
    rule = (listener.allowed_routes.namespaces if listener.allowed_routes else None) or {}
    given = rule.get("from") or "Same"
    return given if isinstance(given, str) else ""


class AllowedNamespaces:
    """Which listeners of a gateway are closed to which routes; found once for each namespace.

    Namespaces are those that clients name in `clientRef`; one name is one namespace, whichever cluster's.
    """

    def __init__(self, proxy: GWProxy, listeners: Iterable[Listener]) -> None:
        self._namespace = proxy.spec.client_ref.namespace
        self._rules = {listener.name: namespaces_from(listener) for listener in listeners}
        self._found: dict[str, Mapping[str, str]] = {}

    def closed_to(self, route: GWRoute) -> Mapping[str, str]:
        """Why listeners do not take the route, by their names.

        What a client controller sends it has admitted: it knows its cluster's Gateway and Namespaces.
        """
        if route.metadata.annotations.get(SOURCES_ANNOTATION):
            return {}
        namespace = route.spec.client_ref.namespace
        if namespace not in self._found:
            # Listeners of one rule share one text: many routes may each be of a namespace of their own.
            whys = {rule: self._why_closed(rule, namespace) for rule in set(self._rules.values())}
            self._found[namespace] = {name: whys[rule] for name, rule in self._rules.items() if whys[rule]}
        return self._found[namespace]

    def _why_closed(self, rule: str, namespace: str) -> str:
        match rule:
            case "All":
                return ""
            case "Selector":
                return _BY_LABELS
            case "Same":
                # A client that names no namespaces has nothing that could be kept apart by them.
                if namespace == self._namespace or not namespace or not self._namespace:
                    return ""
                return (
                    f"only routes of namespace {self._namespace!r} are taken, and this one is of "
                    f"{namespace!r} (allowedRoutes.namespaces, from: Same)"
                )
            case _:
                return _UNKNOWN
