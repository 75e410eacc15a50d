# SPDX-License-Identifier: Apache-2.0
"""The matches of a route's rules, each of which is a route of Envoy's."""

from __future__ import annotations

from collections.abc import Sequence

from epic.model.gatewayapi import HTTPRouteMatch, HTTPRouteRule
from epic.model.resources import GWRoute

_EVERYTHING = (HTTPRouteMatch(),)
"""None said is every path (HTTPRouteRule of the Gateway API)."""


def matches_of(rule: HTTPRouteRule) -> Sequence[HTTPRouteMatch]:
    """The matches of a rule."""
    return rule.matches or _EVERYTHING


def match_name(route: GWRoute, rule: int, match: int) -> str:
    """What Envoy's route is called, by the numbers of the rule and of its match."""
    ref = route.spec.client_ref
    title = f"{ref.namespace}/{ref.name}" if ref.name else route.name
    return f"{title}/rule/{rule}/match/{match}"
