# SPDX-License-Identifier: Apache-2.0
"""Of which namespaces a gateway's listeners take routes, as far as EPIC can tell. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from epic.model.gatewayapi import Listener
from epic.model.members import GWMember
from epic.model.resources import GWProxy, GWRoute
from epic.model.values.labels import LabelSelector, Operator, Requirement
from epic.model.values.naming import SOURCES_ANNOTATION

NAME_LABEL = "kubernetes.io/metadata.name"
"""The one label that every namespace has, also where there is no Namespace object."""
_OPERATORS: dict[object, Operator] = {
    "In": "in",
    "NotIn": "notin",
    "Exists": "exists",
    "DoesNotExist": "absent",
}
_BY_LABELS = (
    "routes are taken by the labels of their namespaces (allowedRoutes.namespaces, from: Selector), which "
    f"EPIC does not know; use Same, All, or a selector of label {NAME_LABEL} only"
)
_NO_SELECTOR = "allowedRoutes.namespaces.selector is missing or not understood, and no route is taken"
_UNKNOWN = "allowedRoutes.namespaces.from is none of Same, All and Selector, and no route is taken"


def namespaces_from(listener: Listener) -> str:
    """`allowedRoutes.namespaces.from` of a listener; `Same` where it is not said, empty if it is no text."""
    given = _rule(listener).get("from")
    if given is None:
        return "Same"
    return given if isinstance(given, str) else ""


def selector_of(listener: Listener) -> LabelSelector | None:
    """`allowedRoutes.namespaces.selector` of a listener; None: there is none that is understood."""
    content = _rule(listener).get("selector")
    if not isinstance(content, Mapping) or content.keys() - {"matchLabels", "matchExpressions"}:
        return None
    try:
        return LabelSelector(tuple(_requirements(content)))
    except (ValueError, TypeError, AttributeError):
        return None


def own_namespaces(proxy: GWProxy, members: Iterable[GWMember]) -> dict[str, frozenset[str]]:
    """By cluster ID the namespaces of the Gateways that are the gateway or share it."""
    found: dict[str, frozenset[str]] = {}
    for ref in (proxy.spec.client_ref, *(member.spec.client_ref for member in members)):
        found[ref.cluster_id] = found.get(ref.cluster_id, frozenset()) | {ref.namespace}
    return found


class _Rule(NamedTuple):
    takes_from: str
    selector: LabelSelector | None


class AllowedNamespaces:
    """Which listeners of a gateway are closed to which routes; found once for each namespace of a cluster.

    Namespaces are those that clients name in `clientRef`. To a route the gateway's own are those of its
    cluster's Gateways, for a namespace of one cluster says nothing of another's. A cluster of which no
    Gateway is or shares the gateway is measured by that which the gateway stands for.
    """

    def __init__(self, proxy: GWProxy, listeners: Iterable[Listener], members: Iterable[GWMember]) -> None:
        self._default = frozenset({proxy.spec.client_ref.namespace})
        self._own = own_namespaces(proxy, members)
        self._rules = {x.name: _Rule(namespaces_from(x), _merged(selector_of(x))) for x in listeners}
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
            # Listeners share their texts: many routes may each be of a namespace of their own.
            alike: dict[str, str] = {}
            whys = {rule: _why_closed(rule, own, namespace) for rule in set(self._rules.values())}
            whys = {rule: alike.setdefault(why, why) for rule, why in whys.items()}
            self._found[key] = {name: whys[rule] for name, rule in self._rules.items() if whys[rule]}
        return self._found[key]


def _why_closed(rule: _Rule, own: frozenset[str], namespace: str) -> str:
    match rule.takes_from:
        case "All":
            return ""
        case "Selector":
            return _why_not_selected(rule.selector, namespace)
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


def _why_not_selected(selector: LabelSelector | None, namespace: str) -> str:
    """Every namespace has its name for a label; of the others EPIC knows none."""
    if selector is None:
        return _NO_SELECTOR
    if any(requirement.key != NAME_LABEL for requirement in selector.requirements):
        return _BY_LABELS
    if not selector.requirements or (namespace and selector.matches({NAME_LABEL: namespace})):
        return ""
    return (
        f"namespace {namespace!r} is not selected by the names of namespaces that are taken "
        "(allowedRoutes.namespaces, from: Selector)"
    )


def _merged(selector: LabelSelector | None) -> LabelSelector | None:
    """The same in at most four requirements, however many there are: each namespace is measured.

    One of another label is enough that nobody can tell.
    """
    if selector is None:
        return None
    if unknown := next((r for r in selector.requirements if r.key != NAME_LABEL), None):
        return LabelSelector((unknown,))
    named = [r.values for r in selector.requirements if r.operator == "in"]
    others = [r.values for r in selector.requirements if r.operator == "notin"]
    merged = {r for r in selector.requirements if r.operator in {"exists", "absent"}}
    if named:
        merged.add(Requirement(NAME_LABEL, "in", frozenset.intersection(*named)))
    if others:
        merged.add(Requirement(NAME_LABEL, "notin", frozenset.union(*others)))
    return LabelSelector(tuple(merged))


def _rule(listener: Listener) -> Mapping[str, object]:
    return (listener.allowed_routes.namespaces if listener.allowed_routes else None) or {}


def _requirements(content: Mapping[str, object]) -> Iterator[Requirement]:
    for label, value in _mapping(content.get("matchLabels", {})).items():
        yield Requirement(label, "in", frozenset({_text(value)}))
    expressions = content.get("matchExpressions", [])
    if not isinstance(expressions, list):
        raise TypeError("matchExpressions is no list")
    for each in map(_mapping, expressions):
        operator = _OPERATORS.get(each.get("operator"))
        values = each.get("values") or []
        key = each.get("key")
        if operator is None or not isinstance(key, str) or not isinstance(values, list):
            raise ValueError("a requirement is not understood")
        if bool(values) != (operator in {"in", "notin"}):
            raise ValueError(f"{each.get('operator')} takes other values")
        yield Requirement(key, operator, frozenset(map(_text, values)))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("it is no text")
    return value


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError("it is no mapping")
    return value
