# SPDX-License-Identifier: Apache-2.0
"""Endpoints of both families, and of clusters whose networks overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from conftest import PROXIES, ready_instances
from hosts import Lab, Target, eventually, settled, tally

from epic.client import EpicClient

SHOP = "/api/epic/accounts/shop"
NODES = {"node1": "192.168.50.11", "node2": "172.30.3.11"}
OVERLAPPING = "10.77.0.1"
PORT = 8090
HOST = "networks.example.net"

# Answers with the node's name, as the demo's backend does.
BACKEND = """
import http.server, json, socket, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"backend": socket.gethostname(), "client": self.client_address[0]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(("::", int(sys.argv[1])), Handler).serve_forever()
"""


class Backend(NamedTuple):
    """An endpoint of a Service of its own."""

    cluster: str
    node: str
    address: str


@pytest.fixture
def serve(lab: Lab) -> Iterator[Callable[[str, str], None]]:
    """Let a node have an address, and a backend there; both go at the end."""
    made: list[tuple[str, str]] = []
    started = []

    def begin(node: str, address: str) -> None:
        length = 128 if ":" in address else 32
        lab[node].run(f"ip address add {address}/{length} dev lo")
        made.append((node, address))
        process = lab[node].start(f"exec timeout 300 python3 - {PORT}")
        started.append(process)
        assert process.stdin is not None
        process.stdin.write(BACKEND)
        process.stdin.close()

    yield begin
    for process in started:
        process.kill()
    for node, address in made:
        length = 128 if ":" in address else 32
        lab[node].run(f"ip address del {address}/{length} dev lo; pkill -f '^python3 - {PORT}' || true")


@pytest.fixture
def publish(
    lab: Lab, api: EpicClient, make_gateway: Callable[..., dict[str, Any]]
) -> Iterator[Callable[[list[Backend]], Target]]:
    """A gateway whose requests go to these backends; all objects go at the end."""
    made: list[str] = []

    def create(backends: list[Backend]) -> Target:
        proxy = make_gateway()
        name = proxy["metadata"]["name"]
        for number, backend in enumerate(backends):
            path = f"slices/slice-{number}-{name}"
            api.post(f"{SHOP}/slices", {"slice": {"spec": _slice(backend, f"{number}-{name}")}})
            made.insert(0, path)
        references = [{"name": f"service-{n}-{name}", "port": 80} for n in range(len(backends))]
        rule = {"backendRefs": references}
        http = {"parentRefs": [{"name": name}], "hostnames": [HOST], "rules": [rule]}
        owner = {"clusterID": "lab", "namespace": "e2e", "name": "networks", "uid": f"route-{name}"}
        api.post(f"{SHOP}/routes", {"route": {"spec": {"clientRef": owner, "http": http}}})
        made.insert(0, f"routes/route-{name}")
        eventually(lambda: len(ready_instances(api, name)) == 2, within=30, what="both instances announced")
        return settled(lab, Target(proxy["spec"]["public-address"], HOST))

    yield create
    for path in made:
        api.delete(f"{SHOP}/{path}")


def _slice(backend: Backend, name: str) -> dict[str, Any]:
    owner = {"clusterID": backend.cluster, "namespace": "e2e", "name": "networks"}
    return {
        "clientRef": owner | {"uid": f"slice-{name}"},
        "parentRef": owner | {"uid": f"service-{name}"},
        "addressType": "IPv6" if ":" in backend.address else "IPv4",
        "endpoints": [{"addresses": [backend.address], "conditions": {}, "nodeName": backend.node}],
        "ports": [{"name": "http", "protocol": "TCP", "port": PORT}],
        "nodeAddresses": {backend.node: NODES[backend.node]},
    }


@contextmanager
def in_cluster(lab: Lab, node: str, cluster: str) -> Iterator[None]:
    """Let the node's agent, and what it publishes, belong to another cluster for a while."""

    def change(name: str) -> None:
        lab[node].run(
            f"sed -i 's/^cluster: .*/cluster: {name}/' /etc/epic/agent.yaml && "
            f"sed -i 's/cluster-name: .*/cluster-name: {name}/' /etc/epic/manifests/*.yaml && "
            "systemctl restart epic-agent"
        )

    change(cluster)
    try:
        yield
    finally:
        change("lab")


def answered_by(lab: Lab, target: Target, nodes: set[str]) -> None:
    """All of many requests are answered, by each of the nodes."""
    eventually(
        lambda: {r.backend for r in lab.request(target, 8)} == nodes, within=20, what=f"answers of {nodes}"
    )
    replies = lab.request(target, 60)
    assert {r.status for r in replies} == {200}, tally(replies)
    assert {r.backend for r in replies} == nodes, tally(replies)


def test_ipv6_endpoints_are_reached_over_an_ipv4_underlay_and_nat(
    lab: Lab, serve: Callable[[str, str], None], publish: Callable[[list[Backend]], Target]
) -> None:
    addresses = {"node1": "fd77::1", "node2": "fd77::2"}
    for node, address in addresses.items():
        serve(node, address)
    target = publish([Backend("lab", node, address) for node, address in addresses.items()])
    answered_by(lab, target, {"node1", "node2"})
    sources = {r.inside for r in lab.request(target, 20)}
    assert all(source.startswith("fd65:7069:6300::") for source in sources), sources


def test_two_clusters_with_the_same_endpoint_address_are_served_behind_one_gateway(
    lab: Lab,
    api: EpicClient,
    web: dict[str, Any],
    web_target: Target,
    serve: Callable[[str, str], None],
    publish: Callable[[list[Backend]], Target],
) -> None:
    for node in NODES:
        serve(node, OVERLAPPING)
    with in_cluster(lab, "node2", "lab2"):
        target = publish([Backend("lab", "node1", OVERLAPPING), Backend("lab2", "node2", OVERLAPPING)])
        answered_by(lab, target, {"node1", "node2"})
    name = web["metadata"]["name"]
    assert api.get(f"{PROXIES}/{name}")["proxy"]["status"]["instances"]
    eventually(
        lambda: {r.backend for r in lab.request(web_target, 8)} == {"node1", "node2"},
        within=30,
        what="the demo's gateway with both backends again",
    )
