# SPDX-License-Identifier: Apache-2.0
"""What a tenant may try, through its gateway, to reach the node's agent or another gateway's Envoy."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import ACCOUNT, ready_instances
from hosts import Lab, Target, eventually, settled, tally

from epic.client import EpicClient

NODE = "epic1"
PORT = 9000
# Names of things of ours: the bootstrap's cluster, one that a validator might have, a part of names.
NAMES = ["epic-agent", "validate-xds", "svc"]
# What an HTTP/2 server answers at once with a frame of type SETTINGS.
HELLO_HTTP2 = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as sock:
    sock.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    sock.settimeout(3)
    try:
        print(sock.recv(200))
    except OSError as error:
        print(type(error).__name__)
"""
CONNECT = """
import json, socket, sys
said = {}
for path in sys.argv[1:]:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        said[path] = "connected"
    except OSError as error:
        said[path] = type(error).__name__
print(json.dumps(said))
"""
ASK_AS = """
import sys, grpc
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
request = discovery_pb2.DeltaDiscoveryRequest(type_url="type.googleapis.com/envoy.config.cluster.v3.Cluster")
request.node.id = sys.argv[1]
with grpc.insecure_channel("unix:/run/epic/agent/xds.sock") as channel:
    stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)
    try:
        print(len(next(stub.DeltaAggregatedResources(iter([request]), timeout=5)).resources), "resources")
    except grpc.RpcError as error:
        print(error.code().name)
"""


@pytest.fixture
def evil(make_gateway: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """A gateway with a TCP listener."""
    return make_gateway(
        **{
            "public-ports": [{"name": "raw", "port": PORT, "protocol": "TCP"}],
            "gateway": {
                "gatewayClassName": "epic",
                "listeners": [{"name": "raw", "port": PORT, "protocol": "TCP"}],
            },
        }
    )


@pytest.fixture
def lead_to(api: EpicClient, evil: dict[str, Any]) -> Iterator[Callable[[str], None]]:
    """Give the gateway a route to a Service with this UID, whose endpoints are the demo's."""
    made: list[str] = []

    def post(collection: str, kind: str, spec: dict[str, Any], cluster: str = "lab") -> None:
        uid = str(uuid.uuid4())
        spec |= {"clientRef": {"clusterID": cluster, "namespace": "e2e", "name": "evil", "uid": uid}}
        made.append(f"/api/epic/accounts/{ACCOUNT}/{collection}/{uid}")
        api.post(f"/api/epic/accounts/{ACCOUNT}/{collection}", {kind: {"spec": spec}})

    def lead(service: str) -> None:
        for slice_ in api.get(f"/api/epic/accounts/{ACCOUNT}/slices")["items"]:
            spec = slice_["spec"]
            parent = {**spec["parentRef"], "name": service, "uid": service}
            copied = {key: spec[key] for key in ("addressType", "endpoints", "ports", "nodeAddresses")}
            post("slices", "slice", {**copied, "parentRef": parent}, spec["clientRef"]["clusterID"])
        rules = [{"backendRefs": [{"name": service, "port": 80}]}]
        parents = [{"name": evil["metadata"]["name"]}]
        post("routes", "route", {"tcp": {"parentRefs": parents, "rules": rules}})

    yield lead
    for path in reversed(made):
        api.delete(path)


@pytest.mark.parametrize("name", NAMES)
def test_a_service_with_the_name_of_a_thing_of_ours_is_a_service_like_any(
    lab: Lab, api: EpicClient, evil: dict[str, Any], lead_to: Callable[[str], None], name: str
) -> None:
    lead_to(name)
    proxy = evil["metadata"]["name"]
    eventually(lambda: len(ready_instances(api, proxy)) == 2, within=30, what="both instances announced")
    target = settled(lab, Target(evil["spec"]["public-address"], "any.example.net", PORT))
    eventually(lambda: lab.request(target, 1)[0].status == 200, within=10, what="a first answer")
    replies = lab.request(target, 10)
    assert {r.status for r in replies} == {200}, tally(replies)
    said = lab["client"].run(f"python3 - {target.address} {PORT}", stdin=HELLO_HTTP2)
    assert "Error code: 505" in said, "the backend answers, which knows no HTTP/2 as the agent's server does"


def test_an_envoy_reaches_its_own_socket_alone_and_is_believed_to_be_itself_alone(
    lab: Lab, web: dict[str, Any], api: EpicClient, evil: dict[str, Any]
) -> None:
    mine, other = f"{ACCOUNT}.{evil['metadata']['name']}", f"{ACCOUNT}.{web['metadata']['name']}"
    eventually(
        lambda: len(ready_instances(api, evil["metadata"]["name"])) == 2, within=30, what="the evil gateway"
    )
    node = lab[NODE]
    pid = node.run(f"systemctl show -P MainPID epic-envoy@{mine}").strip()
    as_envoy = (
        f"nsenter -t {pid} -m setpriv --reuid=$(stat -c %u /proc/{pid}) --regid=$(stat -c %g /proc/{pid})"
        " --clear-groups"
    )
    own, admin = "/run/epic/agent/xds.sock", f"/run/epic/gateways/{mine}/admin.sock"
    foreign = [
        f"/run/epic/xds/{mine}/xds.sock",
        f"/run/epic/xds/{other}/xds.sock",
        f"/run/epic/gateways/{other}/admin.sock",
    ]
    said = json.loads(node.run(f"{as_envoy} python3 - {own} {admin} {' '.join(foreign)}", stdin=CONNECT))
    assert said == {own: "connected", admin: "connected"} | dict.fromkeys(foreign, "PermissionError")
    seen = node.run(f"{as_envoy} find /etc/epic -mindepth 1 -maxdepth 2").split()
    assert sorted(seen) == ["/etc/epic/envoy.yaml", "/etc/epic/gateways", f"/etc/epic/gateways/{mine}"]
    assert "resources" in node.run(f"{as_envoy} /opt/epic/current/bin/python - epic-{mine}", stdin=ASK_AS)
    assert (
        node.run(f"{as_envoy} /opt/epic/current/bin/python - epic-{other}", stdin=ASK_AS)
        == "PERMISSION_DENIED\n"
    )
    assert len(ready_instances(api, web["metadata"]["name"])) == 2
