"""What each EPIC node should have, from what is known of the gateways. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address

from google.protobuf.message import Message

from epic.ads.picture import Inputs
from epic.ads.snapshot import (
    CLUSTER,
    ENDPOINT,
    INSTANCE,
    LISTENER,
    LOAD_ASSIGNMENT,
    ROUTE_CONFIGURATION,
    TUNNEL,
    TYPES,
    Resources,
    Snapshot,
    Versioned,
    versioned,
)
from epic.envoy.endpoints import load_assignment, usable
from epic.envoy.resources import Bundle, bound_to
from epic.gatewayapi.routing import Routing
from epic.model.naming import GatewayId, instance_interface
from epic.model.resources import ProxyInstance
from epic.proto import epic_pb2
from epic.tunnels import WorkloadNode, key_of, proxy_services, workload_endpoints


@dataclass(frozen=True)
class Accepted:
    """A gateway's configuration that Envoy accepts."""

    routing: Routing
    bundle: Bundle

    @cached_property
    def shared(self) -> Snapshot:
        """The resources that are the same for all instances."""
        gateway = self.routing.gateway
        return {
            LISTENER: _prefixed(gateway, self.bundle.listeners),
            ROUTE_CONFIGURATION: _prefixed(gateway, self.bundle.routes),
        }

    def clusters(self, inside: IPv4Address) -> Resources:
        """The clusters of the instance with this inside address."""
        bound = {name: bound_to(cluster, inside) for name, cluster in self.bundle.clusters.items()}
        return _prefixed(self.routing.gateway, bound)


def gateway_parts(inputs: Inputs, accepted: Accepted | None) -> dict[str, Snapshot]:
    """What the gateway contributes to each node; without an accepted configuration nothing for Envoy."""
    shared: dict[str, Resources] = {}
    if accepted is not None:
        shared |= accepted.shared
        shared[LOAD_ASSIGNMENT] = _prefixed(
            inputs.proxy.id,
            {c.name: load_assignment(c, inputs.slices) for c in accepted.routing.clusters},
        )
    return {
        instance.node: {
            **shared,
            INSTANCE: {str(inputs.proxy.id): versioned(_instance(inputs, instance, accepted))},
            TUNNEL: {m.id: versioned(m.message) for m in _tunnels(inputs, instance)},
            ENDPOINT: _endpoints(inputs, instance),
            CLUSTER: accepted.clusters(instance.inside_address) if accepted else {},
        }
        for instance in inputs.proxy.status.instances
    }


def parts_basis(inputs: Inputs, accepted: Accepted | None) -> tuple[object, ...]:
    """What `gateway_parts` depends on: the gateway's own reports, for example, do not matter."""
    spec, status = inputs.proxy.spec, inputs.proxy.status
    places = tuple((instance.node, instance.inside_address) for instance in status.instances)
    revision = accepted.bundle.revision if accepted else ""
    return (
        revision,
        spec.public_address,
        status.service,
        places,
        inputs.routes,
        inputs.slices,
        inputs.tunnels,
    )


def node_snapshot(parts: Iterable[Snapshot]) -> Snapshot:
    """The node's snapshot from what its gateways contribute."""
    whole: dict[str, dict[str, Versioned]] = {type_url: {} for type_url in TYPES}
    for part in parts:
        for type_url, resources in part.items():
            whole[type_url].update(resources)
    return whole


@dataclass(frozen=True)
class _Named:
    id: str
    message: Message


def _prefixed(gateway: GatewayId, messages: Mapping[str, Message]) -> dict[str, Versioned]:
    return {f"{gateway}/{name}": versioned(message) for name, message in messages.items()}


def _instance(inputs: Inputs, instance: ProxyInstance, accepted: Accepted | None) -> epic_pb2.Instance:
    proxy = inputs.proxy
    ports = accepted.routing.ports if accepted else ()
    return epic_pb2.Instance(
        gateway=str(proxy.id),
        account=proxy.account,
        service=proxy.status.service,
        public_address=str(proxy.spec.public_address or ""),
        inside_address=str(instance.inside_address),
        interface=instance_interface(instance.inside_address),
        ports=[epic_pb2.Port(number=port.number, protocol="tcp") for port in ports],
        revision=accepted.bundle.revision if accepted else "",
    )


def _tunnels(inputs: Inputs, instance: ProxyInstance) -> Iterable[_Named]:
    for tunnel in inputs.tunnels:
        spec = tunnel.spec
        if spec.epic_node != instance.node:
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
            declared_address=str(spec.node_address),
            keys=keys,
            signing_epoch=spec.signing,
        )
        yield _Named(tunnel.name, message)


def _endpoints(inputs: Inputs, instance: ProxyInstance) -> dict[str, Versioned]:
    """Endpoints, ready or not, on workload nodes to which the instance has a tunnel."""
    gateway = str(inputs.proxy.id)
    services = proxy_services(inputs.proxy.name, inputs.routes)
    behind: dict[str, int] = {}
    tunnels: dict[WorkloadNode, list[int]] = defaultdict(list)
    for tunnel in inputs.tunnels:
        if tunnel.spec.epic_node == instance.node:
            tunnels[key_of(tunnel).workload].append(int(tunnel.name))
    for workload, (_, addresses) in workload_endpoints(services, inputs.slices).items():
        for number in tunnels[workload]:
            for address in filter(usable, addresses):
                # An address on two nodes can be reached through one of them: the older tunnel stays.
                behind[address] = min(number, behind.get(address, number))
    return {
        f"{gateway}/{address}": versioned(
            epic_pb2.Endpoint(
                gateway=gateway, inside_address=str(instance.inside_address), address=address, tunnel=number
            )
        )
        for address, number in sorted(behind.items())
    }
