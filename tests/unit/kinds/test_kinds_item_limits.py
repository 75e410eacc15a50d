# SPDX-License-Identifier: Apache-2.0
"""What has too many items is found before any of them is looked at, wherever it is."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from epic.kinds.item_limits import excess_items
from epic.kinds.registry import KINDS
from epic.model.resources import GWEndpointSliceSpec, GWProxySpec, GWRouteSpec, LBServiceGroupSpec


def found(model: type[BaseModel], content: object) -> list[str]:
    return [str(error) for error in excess_items(model, content)]


def rule(**fields: Any) -> dict[str, Any]:
    return {"http": {"rules": [{}, fields]}}


@pytest.mark.parametrize(
    ("model", "content", "told"),
    [
        (GWRouteSpec, rule(matches=[0] * 65), "http.rules.1.matches: 65 matches; at most 64 are possible"),
        (
            GWRouteSpec,
            rule(backendRefs=[0] * 17),
            "http.rules.1.backendRefs: 17 backends; at most 16 are possible",
        ),
        (GWRouteSpec, rule(filters=[0] * 17), "http.rules.1.filters: 17 filters; at most 16 are possible"),
        (
            GWRouteSpec,
            rule(matches=[{}, {"headers": [0] * 17}]),
            "http.rules.1.matches.1.headers: 17 headers; at most 16 are possible",
        ),
        (
            GWEndpointSliceSpec,
            {"endpoints": [0] * 1001},
            "endpoints: 1001 endpoints; at most 1000 are possible",
        ),
        (
            GWEndpointSliceSpec,
            {"node_addresses": {str(n): 0 for n in range(5001)}},
            "nodeAddresses: 5001 nodes; at most 5000 are possible",
        ),
        (
            LBServiceGroupSpec,
            {"envoy-template": {"envoyResources": {"routes": [0] * 17}}},
            "envoy-template.envoyResources.routes: 17 templates; at most 16 are possible",
        ),
        (GWProxySpec, {"public-ports": [0] * 1025}, "public-ports: 1025 ports; at most 64 are possible"),
    ],
)
def test_a_list_with_too_many_items_is_told_of(model: type[BaseModel], content: Any, told: str) -> None:
    assert found(model, content) == [told]


def test_what_has_too_many_items_is_not_looked_into() -> None:
    rules = [{"matches": [0] * 65}] * 17
    assert found(GWRouteSpec, {"http": {"rules": rules}}) == ["http.rules: 17 rules; at most 16 are possible"]
    assert len(found(GWRouteSpec, {"http": {"rules": rules[:16]}})) == 16


@pytest.mark.parametrize(
    "content",
    [None, 1, "text", [], {"http": 1}, {"http": {"rules": {"a": []}}}, {"http": {"rules": [None, [1]]}}],
)
def test_what_is_of_another_form_is_somebody_elses_to_refuse(content: object) -> None:
    assert found(GWRouteSpec, content) == []


def test_ports_may_be_given_several_times() -> None:
    assert found(GWProxySpec, {"public-ports": [0] * 1024}) == []


def test_every_kind_can_be_looked_at() -> None:
    for kind in KINDS:
        assert found(kind.spec, {}) == []
