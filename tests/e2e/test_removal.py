# SPDX-License-Identifier: Apache-2.0
"""A deleted gateway leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conftest import PROXIES, condition
from hosts import Lab, eventually, eventually_gone

from epic.client import EpicClient

ROUTES = "/api/epic/accounts/shop/routes"
TRACES = """
systemctl list-units --all --plain --no-legend 'epic-*'
ip netns list
ip -o link show
ip route show table all
nft list ruleset
find /etc/epic /run/epic /var/lib/epic/agent /etc/systemd/system -print
/opt/epic/current/bin/python - <<'PY'
from pathlib import Path
from epic.bpf.dataplane import Dataplane
import epic.bpf
plane = Dataplane(Path("/sys/fs/bpf/epic"), Path(epic.bpf.__file__).parent / "gue.bpf.o")
print("endpoints", plane.endpoints())
print("tunnels", sorted(plane.tunnel_ids()))
PY
"""


def traces(lab: Lab, node: str, words: set[str]) -> list[str]:
    """The lines of a node's state that name one of `words`."""
    return [line for line in lab[node].run(TRACES).splitlines() if any(w in line for w in words)]


def test_deleting_a_gateway_leaves_no_unit_namespace_interface_route_map_entry_firewall_element_or_file(
    lab: Lab, api: EpicClient, make_gateway: Callable[..., dict[str, Any]]
) -> None:
    name = make_gateway()["metadata"]["name"]
    web_route = api.get(ROUTES)["items"][0]["spec"]["http"]
    route = {
        "clientRef": {"clusterID": "lab", "namespace": "e2e", "name": "gone", "uid": f"route-{name}"},
        "http": {
            "parentRefs": [{"name": name}],
            "hostnames": ["gone.example.net"],
            "rules": [{"backendRefs": web_route["rules"][0]["backendRefs"]}],
        },
    }
    api.post(ROUTES, {"route": {"spec": route}})

    def ready() -> dict[str, Any] | None:
        proxy: dict[str, Any] = api.get(f"{PROXIES}/{name}")["proxy"]
        announced = all(i["announced"] for i in proxy["status"]["instances"])
        return proxy if announced and condition(proxy, "Ready").get("status") == "True" else None

    proxy = eventually(ready, within=30, what="the gateway ready on both nodes")
    tunnels = {
        str(t["tunnel-id"])
        for node in proxy["spec"]["gue-tunnel-endpoints"].values()
        for t in node["epic-endpoints"].values()
    }
    assert len(tunnels) == 4
    inside = {i["inside-address"] for i in proxy["status"]["instances"]}
    words = {name, proxy["spec"]["public-address"], *inside}
    nodes = ["epic1", "epic2", "node1", "node2"]
    for node in nodes:
        eventually(lambda node=node: traces(lab, node, words), within=15, what=f"traces on {node}")

    api.delete(f"{ROUTES}/route-{name}")
    api.delete(f"{PROXIES}/{name}")

    for node in nodes:
        eventually_gone(
            lambda node=node: traces(lab, node, words), within=30, what=f"the deleted gateway on {node}"
        )
