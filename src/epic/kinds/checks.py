# SPDX-License-Identifier: Apache-2.0
"""What the Gateway API asks of an object besides the limits of single fields."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from epic.kinds.faults import FieldError
from epic.model.gatewayapi import HTTPRouteSpec
from epic.model.resources import GWEndpointSlice, GWProxy, GWRoute

MOST_MATCHES = 128
"""Of all rules of a route."""
MOST_CERTIFICATES = 64
MOST_TLS_OPTIONS = 16

_BAD_IN_PATH = re.compile(r"//|/\./|/\.\./|%2[fF]|#|/\.\.?$")


def check_listeners(proxy: GWProxy) -> Iterator[FieldError]:
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
