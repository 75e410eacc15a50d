# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the journeys. They run on the lab as `make demo` leaves it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hosts import CREDENTIAL, Lab, Target, eventually, load_lab, settled

from epic.client import EpicClient

ACCOUNT = "shop"
PROXIES = f"/api/epic/accounts/{ACCOUNT}/proxies"
GROUP = f"/api/epic/accounts/{ACCOUNT}/groups/http"


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab's hosts."""
    return load_lab()


@pytest.fixture(scope="session")
def api() -> EpicClient:
    """The REST API, as the administrator."""
    credential = yaml.safe_load(CREDENTIAL.read_text())
    return EpicClient(
        credential["server"], credential["username"], credential["password"], credential["ca-file"]
    )


def condition(proxy: dict[str, Any], kind: str) -> dict[str, Any]:
    """The gateway's condition of that type; empty when it has none."""
    return next((c for c in proxy["status"].get("conditions", []) if c["type"] == kind), {})


def ready_instances(api: EpicClient, name: str) -> dict[str, str]:
    """Inside address to node, of the instances that are announced."""
    status = api.get(f"{PROXIES}/{name}")["proxy"]["status"]
    return {i["inside-address"]: i["node"] for i in status["instances"] if i["announced"]}


@pytest.fixture(scope="session")
def web(api: EpicClient) -> dict[str, Any]:
    """The demo's gateway, with both instances announced."""
    proxies = api.get(PROXIES)["items"]
    proxy = next(p for p in proxies if p["spec"]["display-name"] == "web")
    name = proxy["metadata"]["name"]
    eventually(
        lambda: len(ready_instances(api, name)) == 2, within=30, what="both instances of `web` announced"
    )
    return api.get(f"{PROXIES}/{name}")["proxy"]


@pytest.fixture
def web_target(lab: Lab, web: dict[str, Any]) -> Target:
    """Where requests to the demo's gateway go, once the router spreads them over both instances."""
    return settled(lab, Target(web["spec"]["public-address"], "shop.example.net"))


@pytest.fixture
def make_gateway(api: EpicClient) -> Iterator[Callable[..., dict[str, Any]]]:
    """Create gateways through REST; those still there are deleted at the end."""
    made: list[str] = []

    def make(group: str = GROUP, **spec: Any) -> dict[str, Any]:
        uid = str(uuid.uuid4())
        body = {
            "clientRef": {"clusterID": "lab", "namespace": "e2e", "name": "e2e", "uid": uid},
            "display-name": f"e2e-{uid[:8]}",
            "public-ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
            "gateway": {
                "gatewayClassName": "epic",
                "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
            },
        }
        made.append(uid)
        api.post(f"{group}/proxies", {"proxy": {"spec": body | spec}})
        return api.get(f"{PROXIES}/{uid}")["proxy"]

    yield make
    for uid in made:
        api.delete(f"{PROXIES}/{uid}")


@pytest.fixture
def frozen() -> Callable[[str], AbstractContextManager[None]]:
    """Freeze a whole host, as a hang does: its links stay up and nothing on it runs."""

    @contextmanager
    def freeze(host: str) -> Iterator[None]:
        state = Path(f"/sys/fs/cgroup/freezer/epic-lab/{host}/freezer.state")
        state.write_text("FROZEN")
        try:
            yield
        finally:
            state.write_text("THAWED")

    return freeze
