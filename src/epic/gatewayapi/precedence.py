# SPDX-License-Identifier: Apache-2.0
"""In which order the matches of all routes on a listener are tried."""

from __future__ import annotations

from datetime import UTC, datetime

from epic.gatewayapi.routing import Header
from epic.model.gatewayapi import HTTPRouteMatch
from epic.model.resources import GWRoute

RouteAge = tuple[datetime, str, str]
MatchRank = tuple[int, int, int, RouteAge, int, int]

_FIRST = datetime.min.replace(tzinfo=UTC)


def route_age(route: GWRoute) -> RouteAge:
    """Older routes come first, of the same age by the client's `NAMESPACE/NAME` of them.

    The client's object counts where its age is known: EPIC's may have been made anew.
    """
    ref = route.spec.client_ref
    created = ref.creation_timestamp or route.metadata.creation_timestamp or _FIRST
    return (created, f"{ref.namespace}/{ref.name}", route.name)


def match_headers(match: HTTPRouteMatch) -> tuple[Header, ...]:
    """The header conditions, each name once (the first counts), sorted."""
    found: dict[str, str] = {}
    for header in match.headers:
        found.setdefault(header.name.lower(), header.value)
    return tuple(Header(name, value) for name, value in sorted(found.items()))


def match_path(match: HTTPRouteMatch) -> str:
    """The path; a prefix loses its trailing slashes, for it matches whole elements."""
    if match.path.type == "Exact":
        return match.path.value
    return match.path.value.rstrip("/") or "/"


def match_rank(match: HTTPRouteMatch, age: RouteAge, rule: int, position: int) -> MatchRank:
    """Smaller comes first: Exact, longer prefix, more headers, older route, earlier rule, earlier match."""
    exact = match.path.type == "Exact"
    length = 0 if exact else len(match_path(match))
    return (0 if exact else 1, -length, -len(match_headers(match)), age, rule, position)
