# SPDX-License-Identifier: Apache-2.0
"""A TCPRoute: a gateway's TCP listener leads connections to the same backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conftest import PROXIES
from hosts import Lab, Target, eventually, settled, tally

from epic.client import EpicClient

ROUTES = "/api/epic/accounts/shop/routes"
PORT = 9000


def test_connections_to_a_tcp_listener_reach_both_backends(
    lab: Lab, api: EpicClient, web: dict[str, Any], make_gateway: Callable[..., dict[str, Any]]
) -> None:
    listener = {"name": "raw", "port": PORT, "protocol": "TCP"}
    proxy = make_gateway(
        **{
            "public-ports": [{"name": "raw", "port": PORT, "protocol": "TCP"}],
            "gateway": {"gatewayClassName": "epic", "listeners": [listener]},
        }
    )
    name = proxy["metadata"]["name"]
    of_web = next(
        route["spec"]["http"]
        for route in api.get(ROUTES)["items"]
        if route["spec"]["http"]["parentRefs"][0]["name"] == web["metadata"]["name"]
    )
    spec = {
        "clientRef": {"clusterID": "lab", "namespace": "e2e", "name": "raw", "uid": f"route-{name}"},
        "tcp": {
            "parentRefs": [{"name": name}],
            "rules": [{"backendRefs": of_web["rules"][0]["backendRefs"]}],
        },
    }
    api.post(ROUTES, {"route": {"spec": spec}})
    try:
        target = Target(proxy["spec"]["public-address"], "any.example.net", PORT)

        def all_announced() -> bool:
            instances = api.get(f"{PROXIES}/{name}")["proxy"]["status"]["instances"]
            return all(instance["announced"] for instance in instances)

        eventually(all_announced, within=30, what="the TCP gateway announced on both nodes")
        eventually(lambda: lab.request(target, 1)[0].status == 200, within=10, what="a first answer")
        replies = lab.request(settled(lab, target), 40)
        assert {r.status for r in replies} == {200}, tally(replies)
        assert {r.backend for r in replies} == {"node1", "node2"}, tally(replies)
    finally:
        api.delete(f"{ROUTES}/route-{name}")
