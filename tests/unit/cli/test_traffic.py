# SPDX-License-Identifier: Apache-2.0
"""What `epicctl status` says of an account whose requests do not come through."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from epic.cli.printing.health import Health, judge
from epic.cli.printing.traffic import traffic_lines
from epic.model.resources import GWProxy

GATEWAY = {
    "metadata": {"name": "U1", "namespace": "shop"},
    "spec": {"display-name": "web"},
    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
}
Row = dict[str, Any]


def route(name: str, *services: str, parent: str = "U1", kind: str = "http") -> Row:
    rules = [{"backendRefs": [{"name": service} for service in services]}]
    spec = {"clientRef": {"namespace": "shop", "name": name}, kind: {"parentRefs": [{"name": parent}]}}
    spec[kind]["rules"] = rules
    return {"metadata": {"name": f"uid-{name}"}, "spec": spec}


def piece(service: str, *ready: bool | None) -> Row:
    endpoints = [
        {"addresses": ["10.0.0.1"], "conditions": {} if state is None else {"ready": state}}
        for state in ready
    ]
    ref = {"uid": service, "namespace": "shop", "name": f"service-{service}"}
    return {"metadata": {"name": f"of-{service}"}, "spec": {"parentRef": ref, "endpoints": endpoints}}


def tunnel(node: str, state: str) -> Row:
    return {"cluster": "lab", "node": node, "state": state}


def problems(*routes: Row, slices: tuple[Row, ...] = (), tunnels: tuple[Row, ...] = (), **more: Any) -> Any:
    health: Health = judge(None, [GATEWAY], None)
    lines = traffic_lines([GATEWAY], routes, slices, tunnels, **more)
    return [f"{line.name}: {line.problem}" for line in lines if line.theirs] + health.problems


def test_nothing_is_said_of_what_comes_through() -> None:
    served = (piece("S", False, True), piece("T", None))
    ups = (tunnel("n1", "up"), tunnel("n1", "up"))
    assert problems(route("r", "S"), route("t", "T", kind="tcp"), slices=served, tunnels=ups) == []
    assert problems() == []


def test_a_gateway_is_named_whose_routes_lead_to_services_without_endpoints() -> None:
    assert problems(route("r", "S"), slices=(piece("S", False),)) == [
        "shop/web: none of its requests is served: there is no ready endpoint of Service shop/service-S"
    ]
    assert problems(route("r", "S", "T"), slices=(piece("T", True),)) == [
        "shop/web: there is no ready endpoint of Service S"
    ]


def test_a_route_is_named_whose_gateway_is_not_there() -> None:
    assert problems(route("r", parent="U2")) == ["route shop/r: there is no gateway U2"]


def test_a_workload_node_is_named_to_which_tunnels_are_down_unless_it_is_silent() -> None:
    down = (tunnel("n1", "down"), tunnel("n1", "up"), tunnel("n2", "down"))
    assert problems(tunnels=down, silent=[{"cluster": "lab", "node": "n2"}]) == [
        "workload node lab/n1: 1 of 2 tunnels to it are down; see epicctl tunnels"
    ]


def test_status_of_an_account_tells_it_and_ends_with_1(
    epicctl: Callable[..., subprocess.CompletedProcess[str]], shop: Path, live_api: Any
) -> None:
    epicctl("apply", "-f", str(shop / "platform.yaml"), "-f", str(shop / "gateway.yaml"))
    assert live_api.store.list(GWProxy)
    done = epicctl("status", "-A", "shop")
    assert done.returncode == 1
    assert "shop/web: none of its requests is served: there is no ready endpoint of Service" in done.stdout
