# SPDX-License-Identifier: Apache-2.0
"""By what objects are found: each function gives the values under which an object is in an index.

Names of an account's objects come with the account, for another's may be the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from epic.kinds.kind import IndexValue
from epic.model.balancers import RemoteEndpoint
from epic.model.members import GWMember
from epic.model.nodes import Quarantine
from epic.model.releases import ReleasedAddress
from epic.model.resources import (
    GWEndpointSlice,
    GWProxy,
    GWRoute,
    LBServiceGroup,
    Node,
    ServicePrefix,
    Tunnel,
)
from epic.model.runs import Run
from epic.model.siblings import Siblings
from epic.model.values.naming import GatewayId
from epic.tunnels import route_parents, route_services

Values = Iterable[IndexValue]


def proxy_group(proxy: GWProxy) -> Values:
    """(account, template)."""
    return ((proxy.account, proxy.spec.group),)


def proxy_nodes(proxy: GWProxy) -> Values:
    """The EPIC nodes of its instances."""
    return {instance.node for instance in proxy.status.instances}


def proxy_addresses(proxy: GWProxy) -> Values:
    """Its public addresses and its instances' inside addresses."""
    inside = (str(instance.inside_address) for instance in proxy.status.instances)
    return (*inside, *map(str, proxy.addresses))


def proxy_dns_names(proxy: GWProxy) -> Values:
    """Its DNS names."""
    return {endpoint.dns_name for endpoint in proxy.spec.endpoints}


def member_gateway(member: GWMember) -> Values:
    """(account, gateway) that it shares."""
    return ((member.account, member.spec.sharing_key),)


def route_gateways(route: GWRoute) -> Values:
    """(account, gateway) of its parents."""
    return {(route.account, name) for name in route_parents(route)}


def route_backends(route: GWRoute) -> Values:
    """(account, UID) of the Services that it sends requests to."""
    return {(route.account, uid) for uid in route_services(route)}


def slice_service(piece: GWEndpointSlice) -> Values:
    """(account, UID) of its Service."""
    return ((piece.account, piece.spec.parent_ref.uid),)


def group_prefix(group: LBServiceGroup) -> Values:
    """The pool of its gateways' addresses."""
    return (group.spec.service_prefix,)


def prefix_pools(prefix: ServicePrefix) -> Values:
    """Its subnets."""
    pools = (prefix.spec.public_pool, prefix.spec.alt_pool)
    return {str(pool.subnet) for pool in pools if pool is not None}


def node_address(node: Node) -> Values:
    """Its underlay address."""
    return (str(node.spec.address),)


def tunnel_gateway(tunnel: Tunnel) -> Values:
    """(account, gateway)."""
    return ((tunnel.account, tunnel.spec.proxy),)


def tunnel_node(tunnel: Tunnel) -> Values:
    """The EPIC node."""
    return (tunnel.spec.epic_node,)


def tunnel_workload_node(tunnel: Tunnel) -> Values:
    """(account, cluster, node) of its other end."""
    return ((tunnel.account, tunnel.spec.cluster_id, tunnel.spec.node_name),)


def sibling_nodes(siblings: Siblings) -> Values:
    """The nodes that are to have the list."""
    return set(siblings.spec.nodes)


def quarantine_gateway(quarantine: Quarantine) -> Values:
    """(account, gateway) whose it was."""
    return (tuple(GatewayId.parse(quarantine.spec.gateway)),)


def quarantine_node(quarantine: Quarantine) -> Values:
    """The node that was removed."""
    return (quarantine.spec.node,)


def release_account(released: ReleasedAddress) -> Values:
    """The account that had it."""
    return (released.spec.account,)


def run_state(run: Run) -> Values:
    """How it goes: the queue looks for those that wait."""
    return (run.status.state,)


def run_nodes(run: Run) -> Values:
    """Where it runs."""
    return set(run.spec.nodes)


def endpoint_balancer(endpoint: RemoteEndpoint) -> Values:
    """(account, load balancer) that it is of."""
    return ((endpoint.account, endpoint.spec.load_balancer),)


def endpoint_cluster(endpoint: RemoteEndpoint) -> Values:
    """(account, load balancer, cluster) that it is of."""
    return ((endpoint.account, endpoint.spec.load_balancer, endpoint.spec.cluster),)
