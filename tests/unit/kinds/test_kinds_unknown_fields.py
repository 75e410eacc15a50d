# SPDX-License-Identifier: Apache-2.0
"""Fields that a kind does not have are found wherever they are, and those that it has are not."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kind_samples import content, objects

from epic.kinds.kind import Kind
from epic.kinds.registry import GW_ENDPOINT_SLICE, GW_PROXY, GW_ROUTE, KINDS
from epic.kinds.unknown_fields import unknown_fields, unknown_in_object
from epic.model.base import Resource


def found(kind: Kind[Any], body: dict[str, Any]) -> list[str]:
    return unknown_fields(kind.spec, body["spec"], "spec")


@pytest.mark.parametrize("kind", list(KINDS), ids=lambda kind: kind.name)
def test_the_fields_of_a_kind_are_known(kind: Kind[Any]) -> None:
    assert found(kind, content(kind)) == []


@given(objects())
def test_what_is_stored_has_known_fields_only(obj: Resource) -> None:
    kind = KINDS.of(obj)
    assert found(kind, json.loads(kind.encode(obj))) == []


def marked(kind: Kind[Any], path: str) -> dict[str, Any]:
    body = content(kind)
    at: Any = body
    for part in path.replace("[]", ".0").split("."):
        at = at[int(part)] if isinstance(at, list) else at[part]
    at["noSuchField"] = 1
    spec: dict[str, Any] = body["spec"]
    return spec


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (GW_ROUTE, "spec"),
        (GW_ROUTE, "spec.clientRef"),
        (GW_ROUTE, "spec.http"),
        (GW_ROUTE, "spec.http.rules[]"),
        (GW_ROUTE, "spec.http.rules[].matches[].path"),
        (GW_ROUTE, "spec.tcp.rules[].backendRefs[]"),
        (GW_PROXY, "spec.gateway"),
        (GW_PROXY, "spec.gateway.listeners[].allowedRoutes"),
        (GW_PROXY, "spec.public-ports[]"),
        (GW_ENDPOINT_SLICE, "spec.endpoints[].conditions"),
    ],
)
def test_an_unknown_field_is_named_with_its_place(kind: Kind[Any], path: str) -> None:
    assert unknown_fields(kind.spec, marked(kind, path), "spec") == [f"{path}.noSuchField"]


def test_what_is_in_an_opaque_field_is_not_looked_at() -> None:
    assert unknown_fields(GW_PROXY.spec, marked(GW_PROXY, "spec.gateway.listeners[].tls"), "spec") == []


def test_a_field_of_many_items_is_named_once() -> None:
    body = content(GW_ENDPOINT_SLICE)
    (endpoint,) = body["spec"]["endpoints"]
    body["spec"]["endpoints"] = [{**deepcopy(endpoint), "zone": f"z{i}"} for i in range(1000)]
    assert found(GW_ENDPOINT_SLICE, body) == ["spec.endpoints[].zone"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(st.sampled_from(list(KINDS)), st.data())
def test_any_json_can_be_looked_at(kind: Kind[Any], data: st.DataObject) -> None:
    names = [info.alias or name for name, info in kind.spec.model_fields.items()]
    spec = data.draw(st.dictionaries(st.sampled_from([*names, "other"]), JSON))
    assert ("spec.other" in unknown_fields(kind.spec, spec, "spec")) == ("other" in spec)


def test_of_unknown_fields_anywhere_only_some_hundreds_are_looked_for() -> None:
    many = {f"x{number}": 1 for number in range(10_000)}
    texts = dict.fromkeys(many, "")
    for obj in (many, {"metadata": many}, {"metadata": {"labels": texts}}, {"spec": many}):
        assert len(unknown_in_object(GW_PROXY, obj)) == 500
