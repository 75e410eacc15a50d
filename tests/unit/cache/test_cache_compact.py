# SPDX-License-Identifier: Apache-2.0
"""Compact objects are the same objects; what is equal in them is there once, and nobody's copy changes it."""

from __future__ import annotations

from typing import Any

import pytest
from kind_samples import sample

from epic.cache.compact import compact
from epic.kinds.kind import Kind
from epic.kinds.registry import GW_ENDPOINT_SLICE, KINDS
from epic.model.resources import GWEndpointSlice


def endpoints(*ready: bool | None) -> GWEndpointSlice:
    found = [
        {"addresses": [f"10.1.0.{i}"], "conditions": {"ready": is_ready}, "nodeName": "n1"}
        for i, is_ready in enumerate(ready, 1)
    ]
    spec = {"endpoints": found, "nodeAddresses": {"n1": "192.0.2.1"}}
    return GWEndpointSlice.model_validate({"metadata": {"name": "s", "namespace": "a"}, "spec": spec})


@pytest.mark.parametrize("kind", list(KINDS), ids=lambda kind: kind.name)
def test_an_object_is_the_same_after_it(kind: Kind[Any]) -> None:
    obj = sample(kind)
    made = compact(obj)
    assert made == obj
    assert kind.encode(made) == kind.encode(obj)
    assert made.spec.model_fields_set == obj.spec.model_fields_set
    assert made.model_copy(deep=True) == obj


@pytest.mark.parametrize("kind", list(KINDS), ids=lambda kind: kind.name)
def test_an_object_that_is_compact_stays_what_it_is(kind: Kind[Any]) -> None:
    made = compact(sample(kind))
    assert compact(made) is made
    later = compact(made.at(7))
    assert later.metadata.resource_version == 7
    assert later.spec is made.spec


def test_equal_parts_of_different_objects_are_one() -> None:
    one, other = compact(endpoints(True, True, None)), compact(endpoints(True))
    first = one.spec.endpoints[0].conditions
    assert first is one.spec.endpoints[1].conditions is other.spec.endpoints[0].conditions
    assert one.spec.endpoints[2].conditions.ready is None
    assert one.spec.node_addresses["n1"] is other.spec.node_addresses["n1"]
    assert one.metadata.model_fields_set is other.metadata.model_fields_set


def test_true_and_one_are_not_taken_for_each_other() -> None:
    spec = {"endpoints": [{"addresses": [], "conditions": {"ready": True}}], "ports": [{"port": 1}]}
    obj = GWEndpointSlice.model_validate({"metadata": {"name": "s"}, "spec": spec})
    odd = obj.spec.endpoints[0].conditions.model_copy(update={"ready": 1})
    assert compact(odd).ready is not True
    assert compact(obj).spec.endpoints[0].conditions.ready is True


def test_a_changed_copy_leaves_the_others_alone() -> None:
    one, other = compact(endpoints(True)), compact(endpoints(True))
    changed = one.model_copy(update={"spec": one.spec.model_copy(update={"address_type": "IPv6"})})
    assert compact(changed).spec.model_fields_set == {*other.spec.model_fields_set, "address_type"}
    assert one.spec.model_fields_set == other.spec.model_fields_set == {"endpoints", "node_addresses"}
    assert GW_ENDPOINT_SLICE.encode(one) == GW_ENDPOINT_SLICE.encode(other)
