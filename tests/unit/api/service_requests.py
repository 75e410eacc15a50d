# SPDX-License-Identifier: Apache-2.0
"""Requests to the original's first API, and what is made for them."""

from __future__ import annotations

from typing import Any

import httpx
from api_requests import API

from epic.cache.store import CachedStore
from epic.model.balancers import LoadBalancer, RemoteEndpoint
from epic.model.resources import (
    GWEndpointSlice,
    GWRoute,
    Tunnel,
)

ROOT = f"{API}/accounts/root"
SERVICES = f"{ROOT}/groups/gatewayhttp/services"
SHARED = f"{ROOT}/services/gatewayhttp-web"
HTTP = {"name": "http", "protocol": "TCP", "port": 80, "targetPort": 0}
DNS = {"name": "dns", "protocol": "UDP", "port": 53}


def service_body(*ports: dict[str, Any], name: str = "web", **spec: Any) -> dict[str, Any]:
    whole = {"display-name": name, "public-ports": list(ports or (HTTP,)), **spec}
    return {"service": {"metadata": {"name": name}, "spec": whole}}


def endpoint_body(address: str = "10.1.2.3", **spec: Any) -> dict[str, Any]:
    port = {"name": "http", "port": 8080, "protocol": "TCP"}
    return {
        "endpoint": {
            "spec": {
                "cluster": "c1",
                "address": address,
                "node-address": "10.0.0.5",
                "port": port,
                **spec,
            }
        }
    }


def condition(obj: dict[str, Any], type_: str = "Accepted") -> tuple[str, str]:
    found = {c["type"]: (c["status"], c["reason"]) for c in obj["status"]["conditions"]}
    return found[type_]


def left_of(store: CachedStore) -> list[str]:
    """What there is that was made for a Service, but for its gateway."""
    kinds = (LoadBalancer, RemoteEndpoint, GWRoute, GWEndpointSlice, Tunnel)
    return [f"{kind.kind} {obj.name}" for kind in kinds for obj in store.list(kind)]


async def announce(client: httpx.AsyncClient, service: str, body: dict[str, Any]) -> dict[str, Any]:
    reply = await client.post(f"{service}/endpoints", json=body)
    assert reply.status_code == 302, reply.text
    return dict((await client.get(reply.headers["location"])).json())
