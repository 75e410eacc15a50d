# SPDX-License-Identifier: Apache-2.0
"""What must hold of tunnels: who begins to serve, or takes another's place, reaches what others reach."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from life_nodes import EpicNode
from life_plant import Plant

from epic.model.resources import GWEndpointSlice, GWProxy, GWRoute, Node, Tunnel
from epic.model.values.naming import GatewayId
from epic.tunnels import WorkloadNode, key_of, proxy_services, workload_endpoints

_PATIENCE = timedelta(minutes=15)


def check_announced(plant: Plant, node: EpicNode, gateways: Iterable[str]) -> None:
    """A node that hears what it is to do has begun to announce these.

    It reaches what those reach that serve already; while there is none, something at least. One that served
    before, and starts anew, does not wait.
    """
    stored = plant.store.find(Node, "", node.name)
    if stored is None or stored.status.lost:
        return
    for gateway in gateways:
        name = GatewayId.parse(gateway)
        proxy = plant.store.find(GWProxy, name.account, name.proxy)
        instances = {i.node: i for i in proxy.status.instances if i.published} if proxy is not None else {}
        here = instances.get(node.name)
        if here is None or plant.clock() - here.since >= _PATIENCE:
            continue
        if node.first_announced[gateway] < plant.clock.seconds():
            continue
        wanted = _workloads(plant, name)
        has = _reached(plant, name, node.name) & _has(plant, name, node)
        others = [n for n, i in instances.items() if i.announced and n != node.name]
        if others:
            wanted &= set().union(*(_reached(plant, name, other) for other in others))
            assert wanted <= has, f"{node.name} announces {gateway} without tunnels to {wanted - has}"
        else:
            assert has or not wanted, f"{node.name} announces {gateway} without any tunnels"


def check_departure(plant: Plant, proxy: GWProxy, left: str) -> None:
    """Of an instance that has left service another one has taken the place: it reaches no less.

    Tunnels to a workload node are made one after the other, so that one may be missing for a moment.
    """
    reached = _reached(plant, proxy.id, left) & _workloads(plant, proxy.id)
    serving = [i.node for i in proxy.status.instances if i.ready and i.announced and not i.draining]
    missing = min((len(reached - _reached(plant, proxy.id, node)) for node in serving), default=0)
    assert missing <= 1, f"{proxy.id}: nobody reaches {missing} workload nodes that {left} reached"


def _workloads(plant: Plant, gateway: GatewayId) -> set[WorkloadNode]:
    services = proxy_services(gateway.proxy, plant.store.list(GWRoute, gateway.account))
    return set(workload_endpoints(services, plant.store.list(GWEndpointSlice, gateway.account)))


def _reached(plant: Plant, gateway: GatewayId, node: str) -> set[WorkloadNode]:
    """The workload nodes to which a node has tunnels of the gateway, or is to have them."""
    keys = [key_of(t) for t in plant.store.list(Tunnel, gateway.account) if not t.deleting]
    return {k.workload for k in keys if (k.proxy, k.epic_node) == (gateway.proxy, node)}


def _has(plant: Plant, gateway: GatewayId, node: EpicNode) -> set[WorkloadNode]:
    tunnels = plant.store.list(Tunnel, gateway.account)
    return {key_of(tunnel).workload for tunnel in tunnels if int(tunnel.name) in node.tunnels}
