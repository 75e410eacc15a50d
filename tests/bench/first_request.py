# SPDX-License-Identifier: Apache-2.0
"""How long from the POST of a gateway to the first 200 through the router?

Measured by turns with its floor, an Ansible module that does nothing on the same two nodes, so that the
ratio holds on a noisy machine. Needs the lab as `make demo` leaves it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

from hosts import CHECKOUT, CREDENTIAL, INVENTORY, Lab, load_lab

from epic.client import EpicClient

ACCOUNT = "/api/epic/accounts/shop"
FIRST_200 = """
import http.client, sys, time
address, host, deadline = sys.argv[1], sys.argv[2], time.time() + 30
while time.time() < deadline:
    try:
        connection = http.client.HTTPConnection(address, 80, timeout=0.25)
        connection.request("GET", "/", headers={"Host": host})
        if connection.getresponse().status == 200:
            print(time.time())
            break
    except OSError:
        pass
    time.sleep(0.02)
"""


def connect() -> EpicClient:
    """The lab's REST API."""
    file = yaml.safe_load(CREDENTIAL.read_text())
    return EpicClient(file["server"], file["username"], file["password"], file["ca-file"])


def create(api: EpicClient, uid: str, host: str, backends: list[dict[str, Any]]) -> str:
    """Make a gateway with a route to these backends; its address."""
    reference = {"clusterID": "lab", "namespace": "bench", "name": "bench"}
    route = {"clientRef": reference | {"uid": f"route-{uid}"}}
    rules = [{"backendRefs": backends}]
    route["http"] = {"parentRefs": [{"name": uid}], "hostnames": [host], "rules": rules}
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    proxy = {
        "clientRef": reference | {"uid": uid},
        "display-name": uid,
        "public-ports": [{"name": "http", "port": 80}],
        "gateway": {"gatewayClassName": "epic", "listeners": [listener]},
    }
    api.post(f"{ACCOUNT}/routes", {"route": {"spec": route}})
    api.post(f"{ACCOUNT}/groups/http/proxies", {"proxy": {"spec": proxy}})
    address: str = api.get(f"{ACCOUNT}/proxies/{uid}")["proxy"]["spec"]["public-address"]
    return address


def delete(api: EpicClient, uid: str) -> None:
    """Have it deleted."""
    api.delete(f"{ACCOUNT}/proxies/{uid}")
    api.delete(f"{ACCOUNT}/routes/route-{uid}")


def read_backends(api: EpicClient) -> list[dict[str, Any]]:
    """Where the demo's route leads."""
    route = api.get(f"{ACCOUNT}/routes")["items"][0]
    found: list[dict[str, Any]] = route["spec"]["http"]["rules"][0]["backendRefs"]
    return found


def publish(api: EpicClient, lab: Lab, backends: list[dict[str, Any]]) -> float:
    """Seconds from the POST of a new gateway to its first 200 at the client; it is deleted afterwards."""
    uid, host = str(uuid.uuid4()), "bench.example.net"
    begin = time.time()
    try:
        address = create(api, uid, host, backends)
        return float(lab["client"].run(f"python3 - {address} {host}", stdin=FIRST_200)) - begin
    finally:
        delete(api, uid)


def floor() -> float:
    """Seconds that `ansible -m ping` takes on both EPIC nodes, from a warm connection."""
    begin = time.monotonic()
    subprocess.run(
        ["ansible", "-i", str(INVENTORY), "epic_nodes", "-m", "ansible.builtin.ping"],
        cwd=CHECKOUT,
        env=os.environ | {"ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")},
        check=True,
        capture_output=True,
    )
    return time.monotonic() - begin


def main() -> None:
    """Print the medians and their ratio."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    api, lab = connect(), load_lab()
    backends = read_backends(api)
    floor()
    published, floors = [], []
    for number in range(rounds):
        published.append(publish(api, lab, backends))
        floors.append(floor())
        print(f"  {number + 1:2d}/{rounds}  {published[-1]:.2f} s  (floor {floors[-1]:.2f} s)", flush=True)
        time.sleep(2)
    p50 = statistics.median(published)
    ratio = statistics.median(p / f for p, f in zip(published, floors, strict=True))
    print(f"POST of a gateway -> first 200 through the router, {rounds} gateways:")
    print(f"  p50 {p50:.2f} s, min {min(published):.2f} s, max {max(published):.2f} s")
    print(
        f"  ratio to an empty module run on the same nodes: {ratio:.2f} "
        f"(its p50 {statistics.median(floors):.2f} s)"
    )


if __name__ == "__main__":
    main()
