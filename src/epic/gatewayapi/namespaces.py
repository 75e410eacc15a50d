# SPDX-License-Identifier: Apache-2.0
"""Of which namespaces a gateway's listeners take routes, as far as EPIC can tell. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from epic.model.gatewayapi import Listener
from epic.model.members import GWMember
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


def own_namespaces(proxy: GWProxy, members: Iterable[GWMember]) -> dict[str, frozenset[str]]:
    """By cluster ID the namespaces of the Gateways that are the gateway or share it."""
    found: dict[str, frozenset[str]] = {}
    for ref in (proxy.spec.client_ref, *(member.spec.client_ref for member in members)):
        found[ref.cluster_id] = found.get(ref.cluster_id, frozenset()) | {ref.namespace}
    return found


class AllowedNamespaces:
    """Which listeners of a gateway are closed to which routes; found once for each namespace of a cluster.

    Namespaces are those that clients name in `clientRef`. To a route the gateway's own are those of its
    cluster's Gateways, for a namespace of one cluster says nothing of another's. A cluster of which no
    Gateway is or shares the gateway is measured by that which the gateway stands for.
    """

    def __init__(self, proxy: GWProxy, listeners: Iterable[Listener], members: Iterable[GWMember]) -> None:
        self._default = frozenset({proxy.spec.client_ref.namespace})
        self._own = own_namespaces(proxy, members)
        self._rules = {listener.name: namespaces_from(listener) for listener in listeners}
        self._found: dict[tuple[frozenset[str], str], Mapping[str, str]] = {}

    def closed_to(self, route: GWRoute) -> Mapping[str, str]:
        """Why listeners do not take the route, by their names.

        What a client controller sends it has admitted: it knows its cluster's Gateway and Namespaces.
        """
        if route.metadata.annotations.get(SOURCES_ANNOTATION):
            return {}
        client = route.spec.client_ref
        own, namespace = self._own.get(client.cluster_id, self._default), client.namespace
        key = (own, namespace)
        if key not in self._found:
            # Listeners of one rule share one text: many routes may each be of a namespace of their own.
            whys = {rule: _why_closed(rule, own, namespace) for rule in set(self._rules.values())}
            self._found[key] = {name: whys[rule] for name, rule in self._rules.items() if whys[rule]}
        return self._found[key]


def _why_closed(rule: str, own: frozenset[str], namespace: str) -> str:
    match rule:
        case "All":
            return ""
        case "Selector":
            return _BY_LABELS
        case "Same":
            # A client that names no namespaces has nothing that could be kept apart by them.
            if namespace in own or not namespace or "" in own:
                return ""
            names = f"namespace{'s' if len(own) > 1 else ''} {', '.join(map(repr, sorted(own)))}"
            return (
                f"only routes of {names} are taken, and this one is of {namespace!r} "
                "(allowedRoutes.namespaces, from: Same)"
            )
        case _:
            return _UNKNOWN
