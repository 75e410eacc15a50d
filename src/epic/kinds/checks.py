# SPDX-License-Identifier: Apache-2.0
"""What the Gateway API asks of an object besides the limits of single fields."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from pydantic_core import to_json

from epic.kinds.faults import FieldError
from epic.model.gatewayapi import GatewaySpec, HTTPRouteSpec, Listener
from epic.model.members import GWMember
from epic.model.resources import GWEndpointSlice, GWProxy, GWRoute

MOST_MATCHES = 128
"""Of all rules of a route."""
MOST_CERTIFICATES = 64
MOST_TLS_OPTIONS = 16
MOST_UNSERVED_BYTES = 16 << 10
"""Of a Gateway's fields that may hold anything and are not served, as JSON. Lists and objects in them take
much more memory than bytes, and nothing else bounds how many there are."""

_BAD_IN_PATH = re.compile(r"//|/\./|/\.\./|%2[fF]|#|/\.\.?$")


def check_listeners(proxy: GWProxy | GWMember) -> Iterator[FieldError]:
    """Names are keys; what is not read is bounded too."""
    listeners = proxy.spec.gateway.listeners if proxy.spec.gateway else ()
    counts = Counter(listener.name for listener in listeners)
    for i, listener in enumerate(listeners):
        where = ("spec", "gateway", "listeners", i)
        if counts[listener.name] > 1:
            yield FieldError(
                (*where, "name"),
                f"{counts[listener.name]} listeners are called {listener.name!r}; give each its own name",
            )
        for name, most in (("certificateRefs", MOST_CERTIFICATES), ("options", MOST_TLS_OPTIONS)):
            given = (listener.tls or {}).get(name)
            if isinstance(given, list | dict) and len(given) > most:
                yield FieldError((*where, "tls", name), f"{len(given)} items; at most {most} are possible")


def check_unserved(proxy: GWProxy | GWMember) -> Iterator[FieldError]:
    """What is kept only to be shown is small, in all fields together."""
    if proxy.spec.gateway is None:
        return
    size = len(to_json(_unserved(proxy.spec.gateway)))
    if size > MOST_UNSERVED_BYTES:
        yield FieldError(
            ("spec", "gateway"),
            "infrastructure, allowedListeners, tls, and tls and allowedRoutes of the listeners have "
            f"{size} bytes as JSON together; at most {MOST_UNSERVED_BYTES} are possible, "
            "for they are not served",
        )


def check_matches(route: GWRoute) -> Iterator[FieldError]:
    """Paths are paths, and a route has not too many matches in all."""
    http = route.spec.http
    if http is None:
        return
    matches = sum(len(rule.matches) for rule in http.rules)
    if matches > MOST_MATCHES:
        message = f"{matches} matches in all rules; at most {MOST_MATCHES} are possible"
        yield FieldError(("spec", "http", "rules"), message)
    yield from _check_paths(http)


def check_endpoints(piece: GWEndpointSlice) -> Iterator[FieldError]:
    """Each has an address, as in Kubernetes: those without are counted for nothing, and are work."""
    for i, endpoint in enumerate(piece.spec.endpoints):
        if not endpoint.addresses:
            yield FieldError(
                ("spec", "endpoints", i, "addresses"), "it is empty; an endpoint has at least one address"
            )


def _unserved(gateway: GatewaySpec) -> list[object]:
    fields = (gateway.infrastructure, gateway.allowed_listeners, gateway.tls)
    found: list[object] = [field for field in fields if field]
    for listener in gateway.listeners:
        found += _unserved_of(listener)
    return found


def _unserved_of(listener: Listener) -> Iterator[object]:
    if listener.tls:
        yield listener.tls
    allowed = listener.allowed_routes
    if allowed and allowed.namespaces:
        yield allowed.namespaces
    for kind in allowed.kinds or () if allowed else ():
        # A kind has these two; who names it for each of many listeners has said nothing that is too much.
        other = {name: value for name, value in kind.items() if name not in ("group", "kind")}
        if other:
            yield other


def _check_paths(http: HTTPRouteSpec) -> Iterator[FieldError]:
    for i, rule in enumerate(http.rules):
        for j, match in enumerate(rule.matches):
            path = match.path.value
            if match.path.type == "RegularExpression":
                continue
            if not path.startswith("/") or _BAD_IN_PATH.search(path):
                yield FieldError(
                    ("spec", "http", "rules", i, "matches", j, "path", "value"),
                    f"it is {path[:80]!r}, and should begin with '/' and have no '//', '/./', '/../', '%2f' "
                    "or '#' in it and no '/.' or '/..' at its end",
                )
