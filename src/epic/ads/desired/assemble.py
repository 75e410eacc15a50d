# SPDX-License-Identifier: Apache-2.0
"""What each EPIC node should have, from what is known of the gateways. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from google.protobuf.message import Message

from epic.ads.desired.objects import Inputs
from epic.ads.snapshot import (
    CLUSTER,
    ENDPOINT,
    INSTANCE,
    LISTENER,
    LOAD_ASSIGNMENT,
    ROUTE_CONFIGURATION,
    TUNNEL,
    Resources,
    Snapshot,
    Versioned,
    encoded,
    versioned,
)
from epic.envoy.endpoints import LoadAssignments, load_assignments
from epic.envoy.resources import Bundle, bound_to
from epic.errors import Invalid
from epic.gatewayapi.routing import Routing
from epic.ipam.networks import Pools, inside6
from epic.lifecycle.digest import Placed, node_digest
from epic.model.instances import ProxyInstance
from epic.model.resources import Node
from epic.model.values.addresses import Address
from epic.model.values.naming import GatewayId, instance_interface
from epic.overlap import Place, endpoint_places, envoy_addresses, unmapped_cluster
from epic.proto import epic_pb2
from epic.tunnels import WorkloadNode, key_of, workload_endpoints

THE_NODE = "node"
"""The name of the one resource that is the state of the node."""

Workloads = Mapping[WorkloadNode, tuple[Address, set[Address]]]


@dataclass(frozen=True)
class Accepted:
    """A gateway's configuration that Envoy accepts."""

    routing: Routing
    bundle: Bundle
    left_out: int = 0
    """Routes that the gateway has no room for; not known of one that was read from a file."""

    @cached_property
    def shared(self) -> Snapshot:
        """The resources that are the same for all instances."""
        gateway = self.routing.gateway
        return {
            LISTENER: _prefixed(gateway, self.bundle.listeners),
            ROUTE_CONFIGURATION: _prefixed(gateway, self.bundle.routes),
        }

    def clusters(self, inside: IPv4Address, inside6: IPv6Address) -> Resources:
        """The clusters of the instance with these inside addresses."""
        gateway = self.routing.gateway
        # The fields of a message may be encoded one by one.
        source: bytes = bound_to(Cluster(), inside, inside6).SerializeToString(deterministic=True)
        found = {
            f"{gateway}/{name}": encoded(CLUSTER, content + source) for name, content in self._unbound.items()
        }
        rendered = ((n, c) for n, c in self.bundle.clusters.items() if n not in self._unbound)
        for name, cluster in rendered:
            found[f"{gateway}/{name}"] = versioned(bound_to(cluster, inside, inside6))
        return found

    @cached_property
    def _unbound(self) -> Mapping[str, bytes]:
        """The clusters that say nothing of where their connections come from, encoded."""
        return {
            name: cluster.SerializeToString(deterministic=True)
            for name, cluster in self.bundle.clusters.items()
            if not cluster.HasField("upstream_bind_config")
        }


@dataclass(frozen=True)
class GatewayParts:
    """What a gateway contributes to each node, and what to tell its owner of that."""

    by_node: Mapping[str, Snapshot]
    problem: Invalid | None = None


def gateway_parts(inputs: Inputs, accepted: Accepted | None, pools: Pools) -> GatewayParts:
    """What the gateway contributes to each node; without an accepted configuration nothing for Envoy."""
    workloads = workload_endpoints(set(inputs.services), inputs.slices)
    addresses = _envoy_addresses(inputs, workloads, pools)
    shared: dict[str, Resources] = {}
    problem = None
    if accepted is not None:
        assignments = _load_assignments(inputs, accepted, addresses)
        problem = assignments.problem
        shared = {**accepted.shared, LOAD_ASSIGNMENT: _endpoints_of_clusters(inputs.proxy.id, assignments)}
    parts: dict[str, Snapshot] = {}
    for instance in inputs.proxy.status.instances:
        if not instance.published:
            continue
        inside = Inside(instance.inside_address, inside6(pools.inside6, instance.inside_address))
        behind = _behind(inputs, instance.node, workloads)
        parts[instance.node] = {
            **shared,
            INSTANCE: {str(inputs.proxy.id): versioned(_instance(inputs, instance, inside, accepted))},
            TUNNEL: {m.id: versioned(m.message) for m in _tunnels(inputs, instance.node, pools)},
            ENDPOINT: _endpoints(str(inputs.proxy.id), inside, behind, addresses),
            CLUSTER: accepted.clusters(inside.ipv4, inside.ipv6) if accepted else {},
        }
    return GatewayParts(parts, problem)


def parts_basis(inputs: Inputs, accepted: Accepted | None) -> tuple[object, ...]:
    """What `gateway_parts` depends on: the gateway's own reports, for example, do not matter."""
    status = inputs.proxy.status
    places = tuple(
        (i.node, i.inside_address, i.draining, i.drain_seconds, bool(i.hold), i.waits_for_tunnels)
        for i in status.instances
        if i.published
    )
    revision = accepted.bundle.revision if accepted else ""
    return (
        revision,
        inputs.proxy.addresses,
        status.service,
        status.unmapped_cluster,
        places,
        inputs.routes,
        inputs.slices,
        inputs.tunnels,
        inputs.kept,
        inputs.unseen,
    )


def node_state(node: Node, placed: Iterable[Placed]) -> epic_pb2.NodeState:
    """What a node that has these instances is to become and to report."""
    status = node.status
    digest = node_digest(status, placed)
    # What it has of the time before its removal may be others' by now: nothing of that is to be held back.
    meant = digest if status.returning else status.meant_digest
    return epic_pb2.NodeState(digest=digest, removed=status.emptied, meant_digest=meant)


@dataclass(frozen=True)
class _Named:
    id: str
    message: Message


def _prefixed(gateway: GatewayId, messages: Mapping[str, Message]) -> dict[str, Versioned]:
    return {f"{gateway}/{name}": versioned(message) for name, message in messages.items()}


class Inside(NamedTuple):
    """The inside addresses of an instance."""

    ipv4: IPv4Address
    ipv6: IPv6Address

    def of_family(self, address: Address) -> Address:
        """The one that can speak to the address."""
        return self.ipv4 if address.version == 4 else self.ipv6


def _envoy_addresses(inputs: Inputs, workloads: Workloads, pools: Pools) -> dict[Place, Address]:
    unmapped = unmapped_cluster(
        inputs.proxy.status.unmapped_cluster, {workload.cluster_id for workload in workloads}
    )
    return envoy_addresses(endpoint_places(set(inputs.services), inputs.slices), unmapped, pools)


def _load_assignments(
    inputs: Inputs, accepted: Accepted, addresses: Mapping[Place, Address]
) -> LoadAssignments:
    def address_of(cluster_id: str, own: Address) -> Address | None:
        return addresses.get(Place(cluster_id, own))

    # Of the others it is not known what is in them.
    clusters = [cluster for cluster in accepted.routing.clusters if cluster.service not in inputs.unseen]
    return load_assignments(clusters, inputs.slices, inputs.ports, address_of)


def _endpoints_of_clusters(gateway: GatewayId, assignments: LoadAssignments) -> Resources:
    return {
        f"{gateway}/{name}": encoded(LOAD_ASSIGNMENT, content)
        for name, content in assignments.encoded.items()
    }


def _instance(
    inputs: Inputs, instance: ProxyInstance, inside: Inside, accepted: Accepted | None
) -> epic_pb2.Instance:
    proxy = inputs.proxy
    ports = accepted.routing.ports if accepted else ()
    return epic_pb2.Instance(
        gateway=str(proxy.id),
        account=proxy.account,
        service=proxy.status.service,
        public_addresses=map(str, proxy.addresses),
        inside_address=str(inside.ipv4),
        inside_address6=str(inside.ipv6),
        interface=instance_interface(str(proxy.id), inside.ipv4),
        ports=[epic_pb2.Port(number=port.number, protocol="tcp") for port in ports],
        revision=accepted.bundle.revision if accepted else "",
        draining=instance.draining,
        drain_seconds=instance.drain_seconds if instance.draining else 0,
        hold=bool(instance.hold),
        unconnected=instance.waits_for_tunnels,
    )


def _tunnels(inputs: Inputs, node: str, pools: Pools) -> Iterable[_Named]:
    for tunnel in inputs.tunnels:
        spec = tunnel.spec
        if spec.epic_node != node or tunnel.deleting:
            continue
        keys = [
            epic_pb2.Key(epoch=key.epoch, secret=bytes.fromhex(key.secret.get_secret_value()))
            for key in sorted(spec.keys, key=lambda key: key.epoch)
        ]
        message = epic_pb2.Tunnel(
            id=int(tunnel.name),
            gateway=str(inputs.proxy.id),
            service=spec.service,
            inside_address=str(spec.inside_address),
            inside_address6=str(inside6(pools.inside6, spec.inside_address)),
            declared_address=str(spec.node_address),
            keys=keys,
            signing_epoch=spec.signing_epoch,
        )
        yield _Named(tunnel.name, message)


def _behind(inputs: Inputs, node: str, workloads: Workloads) -> dict[Place, int]:
    """The tunnel to each endpoint, ready or not, on workload nodes to which the EPIC node has one."""
    tunnels: dict[WorkloadNode, list[int]] = defaultdict(list)
    for tunnel in inputs.tunnels:
        if tunnel.spec.epic_node == node and not tunnel.deleting:
            tunnels[key_of(tunnel).workload].append(int(tunnel.name))
    behind: dict[Place, int] = {}
    for workload, (_, addresses) in workloads.items():
        for number in tunnels[workload]:
            for place in (Place(workload.cluster_id, address) for address in addresses):
                # An address on two nodes can be reached through one of them: the older tunnel stays.
                behind[place] = min(number, behind.get(place, number))
    return behind


def _endpoints(
    gateway: str, inside: Inside, behind: Mapping[Place, int], addresses: Mapping[Place, Address]
) -> dict[str, Versioned]:
    """What goes through which tunnel, by the addresses that Envoy uses."""
    reached = {addresses[place]: place for place in behind if place in addresses}
    return {
        f"{gateway}/{address}": versioned(
            epic_pb2.Endpoint(
                gateway=gateway,
                inside_address=str(inside.of_family(address)),
                address=str(address),
                tunnel=behind[place],
                real_address="" if address == place.address else str(place.address),
            )
        )
        for address, place in reached.items()
    }
