# SPDX-License-Identifier: Apache-2.0
"""Shapes: what Envoy may judge otherwise has another one, other texts and numbers have not."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from envoy.config.route.v3.route_components_pb2 import Route, RouteMatch
from google.protobuf.json_format import ParseDict

from epic.envoy.builders.clusters import build_cluster
from epic.envoy.builders.listeners import build_listener
from epic.envoy.builders.shapes import shape_of
from epic.gatewayapi.routing import Port, WeightedCluster

WRAPPERS = "type.googleapis.com/google.protobuf"
BASE = {"name": "a", "match": {"prefix": "/", "headers": [{"name": "x", "string_match": {"exact": "y"}}]}}


def shape(body: dict[str, object]) -> str:
    return shape_of(ParseDict(BASE | body, Route()))


@pytest.mark.parametrize(
    "body",
    [
        {"name": "other"},
        {"match": {"prefix": "/x", "headers": BASE["match"]["headers"]}},  # type: ignore[index]
        {"match": {"prefix": "/", "headers": BASE["match"]["headers"] * 2}},  # type: ignore[index]
    ],
)
def test_texts_numbers_and_repetition_make_no_other_shape(body: dict[str, object]) -> None:
    assert shape(body) == shape({})


@pytest.mark.parametrize(
    "body",
    [
        {"match": {"path": "/", "headers": BASE["match"]["headers"]}},  # type: ignore[index]
        {"match": {"prefix": "/"}},
        {
            "match": {
                "prefix": "/",
                "headers": [{"name": "x", "string_match": {"safe_regex": {"regex": "("}}}],
            }
        },
        {"match": {"prefix": "/", "headers": [{"name": "x", "present_match": True}]}},
        {"direct_response": {"status": 500}},
        {"route": {"cluster": "a"}},
        {"typed_per_filter_config": {"f": {"@type": f"{WRAPPERS}.StringValue", "value": "x"}}},
    ],
)
def test_other_fields_make_another_shape(body: dict[str, object]) -> None:
    assert shape(body) != shape({})


def test_flags_and_what_is_in_a_map_count() -> None:
    assert shape_of(RouteMatch(grpc=RouteMatch.GrpcRouteMatchOptions())) != shape_of(RouteMatch())
    kinds = [
        {"typed_per_filter_config": {"f": {"@type": f"{WRAPPERS}.{kind}", "value": value}}}
        for kind, value in (("StringValue", "x"), ("BoolValue", True))
    ]
    assert shape(kinds[0]) != shape(kinds[1])  # type: ignore[arg-type]
    flags = [{"match": {"prefix": "/", "case_sensitive": flag}} for flag in (True, False)]
    assert shape(flags[0]) != shape(flags[1])  # type: ignore[arg-type]


def test_what_is_packed_counts_too() -> None:
    addresses, share = (IPv4Address("203.0.113.1"),), WeightedCluster("a", 1)

    def of(port: Port) -> str:
        return shape_of(build_listener(port, addresses))

    assert of(Port(80, "HTTP")) == of(Port(81, "HTTP"))
    assert of(Port(80, "HTTP")) != of(Port(80, "TCP"))
    assert of(Port(80, "TCP")) != of(Port(80, "TCP", backends=(share,)))
    assert of(Port(80, "TCP", backends=(share,))) == of(Port(80, "TCP", backends=(share, share)))


def test_all_clusters_have_one_shape() -> None:
    assert shape_of(build_cluster("a")) == shape_of(build_cluster("svc/b/80"))
