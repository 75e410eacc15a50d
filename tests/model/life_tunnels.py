# SPDX-License-Identifier: Apache-2.0
"""What must hold of tunnels: who is announced has those that it is to have."""

from __future__ import annotations

from collections.abc import Iterable

from life_nodes import EpicNode
from life_plant import Plant

from epic.model.naming import GatewayId
from epic.model.resources import GWEndpointSlice, GWProxy, GWRoute, Node, Tunnel
from epic.tunnels import WorkloadNode, key_of, proxy_services, workload_endpoints


def check_announced(plant: Plant, node: EpicNode, gateways: Iterable[str]) -> None:
    """A node that hears what it is to do has begun to announce these."""
    stored = plant.store.find(Node, "", node.name)
    if stored is None or stored.status.lost:
        return
    for gateway in gateways:
        name = GatewayId.parse(gateway)
        proxy = plant.store.find(GWProxy, name.account, name.proxy)
        here = proxy is not None and any(i.node == node.name and i.published for i in proxy.status.instances)
        if proxy is None or not here or proxy.status.unconnected or proxy.status.crowded_out:
            continue
        missing = _workloads(plant, name) - _connected(plant, name, node)
        assert not missing, f"{node.name} announces {gateway} without tunnels to {missing}"


def _workloads(plant: Plant, gateway: GatewayId) -> set[WorkloadNode]:
    services = proxy_services(gateway.proxy, plant.store.list(GWRoute, gateway.account))
    return set(workload_endpoints(services, plant.store.list(GWEndpointSlice, gateway.account)))


def _connected(plant: Plant, gateway: GatewayId, node: EpicNode) -> set[WorkloadNode]:
    tunnels = [t for t in plant.store.list(Tunnel, gateway.account) if not t.deleting]
    keys = {key_of(tunnel) for tunnel in tunnels if int(tunnel.name) in node.tunnels}
    return {k.workload for k in keys if (k.proxy, k.epic_node) == (gateway.proxy, node.name)}
