# SPDX-License-Identifier: Apache-2.0
"""Requests as clients send them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

API = "/api/epic"
ADMIN = ("admin", "admin-password")
TENANT = ("user1", "password1")
PROXIES = f"{API}/accounts/root/groups/gatewayhttp/proxies"


class Events:
    """Run events as a test wants them."""

    def __init__(self) -> None:
        self.items: list[Mapping[str, object]] = []

    async def follow(self, run: str, *, live: bool) -> AsyncIterator[Mapping[str, object]]:
        for item in self.items:
            yield item


def proxy_body(uid: str = "U1", **spec: Any) -> dict[str, Any]:
    listeners = [{"name": "http", "port": 80, "protocol": "HTTP"}]
    return {
        "proxy": {
            "metadata": {"name": "", "namespace": ""},
            "spec": {
                "clientRef": {"clusterID": "c1", "namespace": "shop", "name": "web", "uid": uid},
                "display-name": "web" if uid == "U1" else f"web{uid[-20:].lower()}",
                "public-ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 0}],
                "gue-tunnel-endpoints": None,
                "gateway": {"gatewayClassName": "k", "listeners": listeners},
                **spec,
            },
            "status": {},
        }
    }


def route_body(uid: str = "R1", parent: str = "U1", service: str = "S1") -> dict[str, Any]:
    http = {
        "parentRefs": [{"name": parent}],
        "hostnames": ["a.b"],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "backendRefs": [{"kind": "Service", "name": service, "port": 80, "weight": 1}],
            }
        ],
    }
    return {"route": {"spec": {"clientRef": {"clusterID": "c1", "uid": uid}, "http": http}}}


def slice_body(uid: str = "E1", service: str = "S1", nodes: tuple[str, ...] = ("n1",)) -> dict[str, Any]:
    endpoints = [
        {"addresses": [f"10.1.2.{i}"], "nodeName": node, "conditions": {"ready": True}}
        for i, node in enumerate(nodes, 1)
    ]
    spec = {
        "clientRef": {"clusterID": "c1", "uid": uid},
        "parentRef": {"clusterID": "c1", "uid": service},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "nodeAddresses": {node: f"10.0.0.{i}" for i, node in enumerate(nodes, 1)},
    }
    return {"slice": {"spec": spec}}
