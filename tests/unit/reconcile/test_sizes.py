# SPDX-License-Identifier: Apache-2.0
"""What an account's objects count for is what they take of the memory, whatever shape they have."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from epic.cache.compact import compact
from epic.model.resources import GWEndpointSlice, GWRoute
from epic.reconcile.counts.sizes import memory_of

COPIES = 10


def rule(**fields: Any) -> dict[str, Any]:
    return {"http": {"parentRefs": [{"name": "gw"}], "rules": [fields]}}


ROUTE, SLICE = GWRoute, GWEndpointSlice
SHAPES: dict[str, tuple[type[GWRoute | GWEndpointSlice], Callable[[int], dict[str, Any]]]] = {
    "empty matches": (ROUTE, lambda _: rule(matches=[{}] * 64)),
    "paths": (ROUTE, lambda c: rule(matches=[{"path": {"value": f"/{c}/{n}"}} for n in range(64)])),
    "headers": (ROUTE, lambda c: rule(matches=[{"headers": [{"name": "a", "value": f"v{c}"}] * 16}] * 64)),
    "long paths": (
        ROUTE,
        lambda c: rule(matches=[{"path": {"value": f"/{c}/{n}" + "a" * 1000}} for n in range(64)]),
    ),
    "wide letters": (
        ROUTE,
        lambda c: rule(
            matches=[
                {"headers": [{"name": "a", "value": f"{c}-{n}" + "v" * 1000 + "\N{GRINNING FACE}"}]}
                for n in range(64)
            ]
        ),
    ),
    "backends": (ROUTE, lambda c: rule(backendRefs=[{"name": f"s{c}-{n}", "port": 80} for n in range(16)])),
    "empty rules": (ROUTE, lambda _: {"http": {"rules": [{}] * 16}}),
    "parents": (
        ROUTE,
        lambda c: {"http": {"parentRefs": [{"name": f"gw{c}", "port": n} for n in range(1, 33)]}},
    ),
    "what is not served": (
        ROUTE,
        lambda c: rule(filters=[{"a": [{}, [], f"text{c}", c * 1.5, {"b": 1}] * 1000}]),
    ),
    "endpoints": (
        SLICE,
        lambda c: {
            "endpoints": [{"addresses": [f"10.{c}.{n % 4}.{n % 250}"], "nodeName": "n"} for n in range(1000)]
        },
    ),
    "conditions": (
        SLICE,
        lambda _: {"endpoints": [{"addresses": [], "conditions": {"ready": True, "serving": True}}] * 1000},
    ),
    "nodes": (
        SLICE,
        lambda c: {"nodeAddresses": {f"n{n}": f"10.{c}.{n // 250}.{n % 250}" for n in range(5000)}},
    ),
    "ports": (SLICE, lambda c: {"ports": [{"name": f"p{c}", "port": n} for n in range(1, 5001)]}),
}


def wire(spec: dict[str, Any]) -> str:
    return json.dumps({"metadata": {"name": "R1", "namespace": "shop"}, "spec": spec})


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_takes_much_more_of_memory_than_it_counts_for(shape: str) -> None:
    model, spec_of = SHAPES[shape]
    first, *texts = [wire(spec_of(number)) for number in range(COPIES + 1)]
    counted = memory_of(compact(model.model_validate_json(first)).spec)
    gc.collect()
    tracemalloc.start()
    try:
        copies = [compact(model.model_validate_json(text)) for text in texts]
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] / len(copies)
    finally:
        tracemalloc.stop()
    # How much is shared with what was there before depends on that.
    assert counted >= 0.5 * taken
