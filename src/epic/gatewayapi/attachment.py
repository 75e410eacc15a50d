# SPDX-License-Identifier: Apache-2.0
"""Which listeners a route reaches, and the words for it when it reaches none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from epic.gatewayapi.hostnames import ANY, intersection, is_hostname
from epic.gatewayapi.listeners import GROUP, ROUTE_KINDS, Served
from epic.model.gatewayapi import (
    HTTPRouteMatch,
    HTTPRouteRule,
    HTTPRouteSpec,
    Listener,
    ParentReference,
    TCPRouteRule,
    TCPRouteSpec,
)
from epic.model.resources import GWRoute

UNSUPPORTED = "UnsupportedValue"

_SHOWN = 5
_PATH = re.compile(r"/[^\x00-\x20\x7f?#]*")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


@dataclass(frozen=True)
class Attachment:
    """What became of one parentRef: the listeners that admit the route, or the reason why none does."""

    parent: ParentReference
    listeners: tuple[str, ...] = ()
    reason: str = "Accepted"
    message: str = ""

    @property
    def accepted(self) -> bool:
        """Whether any listener admits the route."""
        return bool(self.listeners)


def parents_on(route: GWRoute, proxy: str) -> list[ParentReference]:
    """The route's references to this gateway."""
    return [r for r in route.spec.parent_refs if r.name == proxy and is_gateway(r)]


def is_gateway(parent: ParentReference) -> bool:
    """Whether it refers to a Gateway, and to nothing else of that name."""
    return (parent.kind or "Gateway") == "Gateway" and (parent.group or GROUP) == GROUP


class RouteHostnames:
    """Under which hostnames a route is served; found once for each listener, however many references ask."""

    def __init__(self, route: GWRoute) -> None:
        self.route = route
        http = route.spec.http
        self._own = [name.lower() for name in http.hostnames] if http and http.hostnames else [ANY]
        self._found: dict[str, Sequence[str]] = {}

    def on(self, listener: Served) -> Sequence[str]:
        """The hostnames under which the listener serves the route."""
        known = self._found.get(listener.hostname)
        if known is None:
            found = {intersection(name, listener.hostname) for name in self._own}
            known = self._found[listener.hostname] = sorted(name for name in found if name is not None)
        return known


def attach(
    route: GWRoute, parent: ParentReference, specified: Sequence[Listener], served: Sequence[Served]
) -> Attachment:
    """Judge one reference of a route to a gateway of whose listeners none is closed to its namespace."""
    fault = unsupported(route)
    if fault is not None:
        return Attachment(parent, reason=UNSUPPORTED, message=fault)
    return admit(RouteHostnames(route), parent, specified, served, {})


def admit(
    hostnames: RouteHostnames,
    parent: ParentReference,
    specified: Sequence[Listener],
    served: Sequence[Served],
    closed: Mapping[str, str],
) -> Attachment:
    """Judge one reference of a route that has nothing unsupported.

    `closed` says why listeners do not take routes of its namespace, by their names.
    """
    chosen = {listener.name for listener in specified if _selects(parent, listener)}
    if not chosen:
        return Attachment(parent, reason="NoMatchingParent", message=_no_parent(parent, specified))
    kind = next(iter(hostnames.route.spec.types), "")
    if kind not in ROUTE_KINDS.values():
        served_kinds = " and ".join(f"{kind}s" for kind in ROUTE_KINDS.values())
        text = f"{kind}s are not served, only {served_kinds}: no listener takes it."
        return Attachment(parent, reason="NotAllowedByListeners", message=text)
    allowing = [listener for listener in served if listener.name in chosen and kind in listener.kinds]
    if not allowing:
        text = f"No listener of {_some(sorted(chosen))} takes a route of kind {kind}."
        return Attachment(parent, reason="NotAllowedByListeners", message=text)
    open_ = [listener for listener in allowing if listener.name not in closed]
    if not open_:
        text = _told_closed({listener.name: closed[listener.name] for listener in allowing})
        return Attachment(parent, reason="NotAllowedByListeners", message=text)
    admitting = tuple(listener.name for listener in open_ if hostnames.on(listener))
    if not admitting:
        text = f"None of its hostnames is covered by {_some(sorted({x.hostname for x in open_}))}."
        return Attachment(parent, reason="NoMatchingListenerHostname", message=text)
    return Attachment(parent, listeners=admitting)


def unsupported(route: GWRoute) -> str | None:
    """What in the route cannot be served; such a route is refused as a whole."""
    http, tcp = route.spec.http, route.spec.tcp
    if http is not None:
        return next(_http_faults(http), None)
    if tcp is not None:
        return next(_tcp_faults(tcp), None)
    return None if route.spec.types else "The route is of no type."


def _http_faults(http: HTTPRouteSpec) -> Iterator[str]:
    for hostname in http.hostnames:
        if not is_hostname(hostname.lower()):
            yield f"Hostname {hostname!r} is no DNS name (perhaps with `*.` before it)."
    for number, rule in enumerate(http.rules):
        faults = chain(_unserved(rule), *map(_match_faults, rule.matches))
        yield from (f"Rule {number}: {fault}" for fault in faults)


def _tcp_faults(tcp: TCPRouteSpec) -> Iterator[str]:
    if len(tcp.rules) > 1:
        yield f"It has {len(tcp.rules)} rules; a connection can follow one only."
    yield from (f"Rule {n}: {fault}" for n, rule in enumerate(tcp.rules) for fault in _unserved(rule))


def _unserved(rule: HTTPRouteRule | TCPRouteRule) -> Iterator[str]:
    """Without them the rule would do something else, and perhaps let in whom it is to keep out."""
    if isinstance(rule, HTTPRouteRule):
        given = (rule.filters, rule.timeouts, rule.retry, rule.session_persistence)
        names = ("filters", "timeouts", "retry", "sessionPersistence")
        yield from (
            f"its {name} cannot be served." for name, value in zip(names, given, strict=True) if value
        )
    if any(backend.filters for backend in rule.backend_refs):
        yield "filters of its backends cannot be served."


def _match_faults(match: HTTPRouteMatch) -> Iterator[str]:
    if match.method:
        yield f"a match of method {match.method!r} cannot be served."
    if match.query_params:
        yield "a match of query parameters cannot be served."
    if match.path.type == "RegularExpression":
        yield "a match of a path by a regular expression cannot be served."
    elif not _PATH.fullmatch(match.path.value):
        yield f"path {match.path.value!r} must begin with `/` and hold no blank, `?` or `#`."
    for header in match.headers:
        if header.type == "RegularExpression":
            yield f"a match of header {header.name!r} by a regular expression cannot be served."
        if not _HEADER_NAME.fullmatch(header.name):
            yield f"{header.name!r} is no name of a header."
        elif "_" in header.name:
            yield f"header {header.name!r} never comes: a request with `_` in a header's name is refused."
        if any(c in header.value for c in "\r\n\x00"):
            yield f"the value of header {header.name!r} holds a line break or NUL."


def _selects(parent: ParentReference, listener: Listener) -> bool:
    return parent.section_name in (None, listener.name) and parent.port in (None, listener.port)


def _no_parent(parent: ParentReference, specified: Sequence[Listener]) -> str:
    names = _some([f"{x.name} (port {x.port})" for x in specified]) or "none"
    wanted = [f"section {parent.section_name!r}"] if parent.section_name is not None else []
    wanted += [f"port {parent.port}"] if parent.port is not None else []
    return f"The gateway has no listener with {' and '.join(wanted) or 'any name'}; its listeners: {names}."


def _told_closed(closed: Mapping[str, str]) -> str:
    """Why each of the listeners is closed, told of all alike at once."""
    alike: dict[str, list[str]] = {}
    for name, why in closed.items():
        alike.setdefault(why, []).append(name)
    return " ".join(f"Listeners {_some(sorted(names))}: {why}." for why, names in alike.items())


def _some(names: Sequence[str]) -> str:
    """The first of the names: a gateway may have many, and each of many references may be told of them."""
    more = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return ", ".join([*names[:_SHOWN], *more])
