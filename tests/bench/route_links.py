# SPDX-License-Identifier: Apache-2.0
"""What counting one route costs that leads all that an account may have to all of its gateways.

20 gateways, 256 Services with 20,000 endpoints on 250 workload nodes; processor time. `route_links.py`
"""

from __future__ import annotations

import time
from collections.abc import Callable

from epic.model.resources import GWEndpointSlice, GWRoute
from epic.model.values.naming import GatewayId
from epic.reconcile.counts.backends import Backends

GATEWAYS, SERVICES, NODES, ENDPOINTS = 20, 256, 250, 78
_OF_RULE = 16


def piece(service: int) -> GWEndpointSlice:
    nodes = [f"n{(service * ENDPOINTS + i) % NODES}" for i in range(ENDPOINTS)]
    spec = {
        "clientRef": {"clusterID": "c", "uid": f"s{service}"},
        "parentRef": {"clusterID": "c", "uid": f"s{service}"},
        "endpoints": [
            {"addresses": [f"10.0.{service}.{i}"], "nodeName": node} for i, node in enumerate(nodes)
        ],
        "nodeAddresses": dict.fromkeys(nodes, "192.0.2.1"),
    }
    metadata = {"name": f"s{service}", "namespace": "a"}
    return GWEndpointSlice.model_validate({"metadata": metadata, "spec": spec})


def route() -> GWRoute:
    rules = [
        {"backendRefs": [{"name": f"s{first + i}", "port": 80} for i in range(_OF_RULE)]}
        for first in range(0, SERVICES, _OF_RULE)
    ]
    http = {"parentRefs": [{"name": f"g{number}"} for number in range(GATEWAYS)], "rules": rules}
    return GWRoute.model_validate({"metadata": {"name": "r", "namespace": "a"}, "spec": {"http": http}})


def spent(work: Callable[[], object]) -> float:
    """Milliseconds."""
    before = time.process_time()
    work()
    return (time.process_time() - before) * 1e3


def main() -> None:
    backends, wide = Backends(), route()
    for number in range(GATEWAYS):
        backends.apply_gateway(GatewayId("a", f"g{number}"), exists=True)
    for number in range(SERVICES):
        backends.apply_slice("a", f"s{number}", piece(number))
    comes, goes, found = [], [], []
    for _ in range(5):
        comes.append(spent(lambda: backends.apply_route("a", "r", wide)))
        found.append(spent(lambda: [backends.workloads(GatewayId("a", f"g{g}")) for g in range(GATEWAYS)]))
        goes.append(spent(lambda: backends.apply_route("a", "r", None)))
        backends.apply_slice("a", "s0", piece(0))
    print(f"the route comes: {min(comes):.1f} ms, goes: {min(goes):.1f} ms")
    print(f"the workload nodes behind its {GATEWAYS} gateways are found: {min(found):.1f} ms")


if __name__ == "__main__":
    main()
