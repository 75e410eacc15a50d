# SPDX-License-Identifier: Apache-2.0
"""What it costs to take an object from a client: the largest route, a slice of 1,000 endpoints, small."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from epic.kinds.kind import Kind
from epic.kinds.registry import GW_ENDPOINT_SLICE, GW_ROUTE
from epic.kinds.strategy import prepare_for_update
from epic.kinds.unknown_fields import unknown_fields
from epic.kinds.validation import validate

_TIMES = 300


def route(rules: int, matches: int, backends: int) -> dict[str, Any]:
    """A route."""
    made = [
        {
            "matches": [
                {"path": {"value": f"/{i}/{j}"}, "headers": [{"name": "x-a", "value": "b"}]}
                for j in range(matches)
            ],
            "backendRefs": [{"kind": "Service", "name": f"svc{k}", "port": 80} for k in range(backends)],
        }
        for i in range(rules)
    ]
    hostnames = [f"h{i}.example.net" for i in range(rules)]
    return {"http": {"parentRefs": [{"name": "U1"}], "hostnames": hostnames, "rules": made}}


def endpoints(count: int) -> dict[str, Any]:
    """A slice."""
    nodes = min(count, 100)
    made = [
        {
            "addresses": [f"10.1.{i // 250}.{i % 250}"],
            "nodeName": f"n{i % nodes}",
            "conditions": {"ready": True},
        }
        for i in range(count)
    ]
    addresses = {f"n{i}": f"192.0.2.{i}" for i in range(nodes)}
    return {
        "parentRef": {"uid": "S1"},
        "endpoints": made,
        "ports": [{"port": 80}],
        "nodeAddresses": addresses,
    }


def microseconds(do: Callable[[], object]) -> float:
    """The median of the processor time that it takes."""
    spent = []
    for _ in range(_TIMES):
        began = time.process_time_ns()
        do()
        spent.append(time.process_time_ns() - began)
    return sorted(spent)[_TIMES // 2] / 1000


def measure(title: str, kind: Kind[Any], spec: dict[str, Any]) -> None:
    """Print what an object costs."""
    spec = {"clientRef": {"uid": "U1"}, **spec}
    body = json.dumps({"metadata": {"name": "U1", "namespace": "root"}, "spec": spec}).encode()
    stored, given = kind.decode(body, 7), kind.decode(body, 7)
    if validate(kind, stored):
        raise ValueError(f"{title} is not valid")
    figures = {
        "read": microseconds(lambda: kind.decode(body, 7)),
        "validate": microseconds(lambda: validate(kind, given)),
        "unknown fields": microseconds(lambda: unknown_fields(kind.spec, spec, "spec")),
        "prepare": microseconds(lambda: prepare_for_update(kind, given, stored)),
        "write": microseconds(lambda: kind.encode(given)),
    }
    print(f"{title}, {len(body)} bytes: " + ", ".join(f"{name} {us:.0f} us" for name, us in figures.items()))


if __name__ == "__main__":
    measure("route, 1 rule", GW_ROUTE, route(1, 1, 1))
    measure("route, 16 rules, 128 matches, 256 backends", GW_ROUTE, route(16, 8, 16))
    measure("slice, 10 endpoints", GW_ENDPOINT_SLICE, endpoints(10))
    measure("slice, 1,000 endpoints", GW_ENDPOINT_SLICE, endpoints(1000))
