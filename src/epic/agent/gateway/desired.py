# SPDX-License-Identifier: Apache-2.0
"""Pure: what the resources of the control plane ask of this node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeVar

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from google.protobuf.message import DecodeError, Message

from epic.ads.snapshot import (
    CLUSTER,
    LISTENER,
    ROUTE_CONFIGURATION,
    Versioned,
)
from epic.agent.gateway.chance.siblings import Siblings, read_publics, read_siblings
from epic.agent.tunnel.endpoints import EndpointKey
from epic.agent.tunnel.keys import key_slots
from epic.bpf.dataplane import Address, Endpoint
from epic.model.values.naming import GatewayId, instance_interface
from epic.proto import epic_pb2

M = TypeVar("M", bound=Message)
T = TypeVar("T")

_ENVOY_MESSAGES: dict[str, type[Message]] = {
    CLUSTER: cluster_pb2.Cluster,
    LISTENER: listener_pb2.Listener,
    ROUTE_CONFIGURATION: route_pb2.RouteConfiguration,
}


@dataclass(frozen=True, order=True)
class Element:
    """An element of the nft sets of gateways' ports: `gateway_ports`, and `gateway_ports6` for IPv6."""

    address: Address
    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class Instance:
    """One Envoy of a gateway on this node."""

    gateway: str
    publics: tuple[Address, ...]
    """One, or one of each family."""
    inside: IPv4Address
    inside6: IPv6Address
    interface: str
    elements: frozenset[Element]
    revision: str
    draining: bool = False
    drain_seconds: int = 0
    hold: bool = False
    """It is not to be announced yet; what stands stays."""
    unconnected: bool = False
    """The same, however long it takes."""

    @property
    def insides(self) -> tuple[Address, ...]:
        """Its inside addresses."""
        return self.inside, self.inside6


@dataclass(frozen=True, slots=True)
class NodeState:
    """What the node is to become; `digest` stands for it."""

    digest: str = ""
    removed: bool = False
    meant_digest: str = ""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A tunnel from an instance to a workload node; `keys` has two slots, `active` is the one that signs."""

    id: int
    gateway: str
    service: int
    inside: IPv4Address
    inside6: IPv6Address
    keys: tuple[bytes | None, bytes | None] = field(repr=False)
    active: int
    declared: Address | None = None
    epochs: tuple[int, ...] = ()
    signing: int = 0


@dataclass(frozen=True, slots=True)
class Desired:
    """What this node should do; of tunnels and endpoints only those that must be looked at."""

    instances: Mapping[str, Instance]
    tunnels: Mapping[int, Tunnel]
    endpoints: Mapping[EndpointKey, Endpoint]

    @property
    def elements(self) -> frozenset[Element]:
        """The open ports of all instances."""
        return frozenset().union(*(i.elements for i in self.instances.values()))


EMPTY = Desired({}, {}, {})


def instance(name: str, resource: Versioned) -> Instance:
    """What an Instance says; ValueError names the one that makes no sense. So do the others."""
    return _read(epic_pb2.Instance, _instance, name, resource)


def node_state(name: str, resource: Versioned) -> NodeState:
    """What the control plane says of the node."""
    return _read(epic_pb2.NodeState, _node_state, name, resource)


def tunnel(name: str, resource: Versioned) -> Tunnel:
    """What a Tunnel says."""
    return _read(epic_pb2.Tunnel, _tunnel, name, resource)


def siblings(name: str, resource: Versioned) -> Siblings:
    """What a Siblings says."""

    def convert(message: epic_pb2.Siblings, name: str) -> Siblings:
        _check_name(name, message.gateway)
        return read_siblings(message, resource.version)

    return _read(epic_pb2.Siblings, convert, name, resource)


def endpoint(name: str, resource: Versioned) -> tuple[EndpointKey, Endpoint]:
    """What an Endpoint says."""
    return _read(epic_pb2.Endpoint, _endpoint, name, resource)


def check(type_url: str, name: str, resource: Versioned) -> Versioned:
    """A resource of Envoys, but no load assignment; ValueError when it makes no sense by itself."""
    split(name)
    _parse(name, resource, _ENVOY_MESSAGES[type_url])
    return resource


def split(name: str) -> tuple[str, str]:
    """Gateway id and native name of an Envoy resource on the control plane's stream."""
    gateway, slash, native = name.partition("/")
    if not slash or not native:
        raise ValueError(f"{name!r}: a resource's name is GATEWAY/NAME")
    GatewayId.parse(gateway)
    return gateway, native


def _read(kind: type[M], convert: Callable[[M, str], T], name: str, resource: Versioned) -> T:
    message = _parse(name, resource, kind)
    try:
        return convert(message, name)
    except ValueError as error:
        raise ValueError(f"{kind.DESCRIPTOR.name} {name}: {error}") from error


def _check_name(name: str, right: str) -> None:
    # What is removed is told by its name alone.
    if name != right:
        raise ValueError(f"its name must be {right}")


def _parse(name: str, resource: Versioned, kind: type[M]) -> M:
    message = kind()
    try:
        message.ParseFromString(resource.value)
    except DecodeError as error:
        raise ValueError(f"{kind.DESCRIPTOR.name} {name}: cannot be decoded: {error}") from error
    return message


def _instance(message: epic_pb2.Instance, name: str) -> Instance:
    _check_name(name, message.gateway)
    GatewayId.parse(message.gateway)
    publics, inside = read_publics(message.public_addresses), IPv4Address(message.inside_address)
    interface = instance_interface(message.gateway, inside)
    if message.interface != interface:
        raise ValueError(f"interface {message.interface!r}; it must be {interface}")
    elements = frozenset(
        Element(public, _protocol(p.protocol), _port(p.number)) for public in publics for p in message.ports
    )
    return Instance(
        gateway=message.gateway,
        publics=publics,
        inside=inside,
        inside6=IPv6Address(message.inside_address6),
        interface=message.interface,
        elements=elements,
        revision=message.revision,
        draining=message.draining,
        drain_seconds=message.drain_seconds,
        hold=message.hold,
        unconnected=message.unconnected,
    )


def _node_state(message: epic_pb2.NodeState, _: str) -> NodeState:
    return NodeState(message.digest, message.removed, message.meant_digest)


def _protocol(text: str) -> str:
    if text not in {"tcp", "udp"}:
        raise ValueError(f"protocol {text!r}; it is tcp or udp")
    return text


def _port(number: int) -> int:
    if not 1 <= number <= 65535:
        raise ValueError(f"port {number}; it is 1 to 65535")
    return number


def _tunnel(message: epic_pb2.Tunnel, name: str) -> Tunnel:
    _check_name(name, str(message.id))
    keys = key_slots([(k.epoch, k.secret) for k in message.keys], message.signing_epoch)
    return Tunnel(
        id=message.id,
        gateway=message.gateway,
        service=message.service,
        inside=IPv4Address(message.inside_address),
        keys=keys.slots,
        active=keys.signing % 2,
        declared=ip_address(message.declared_address) if message.declared_address else None,
        inside6=IPv6Address(message.inside_address6),
        epochs=keys.epochs,
        signing=keys.signing,
    )


def _endpoint(message: epic_pb2.Endpoint, name: str) -> tuple[EndpointKey, Endpoint]:
    inside, address = ip_address(message.inside_address), ip_address(message.address)
    real = ip_address(message.real_address) if message.real_address else None
    _check_name(name, f"{message.gateway}/{address}")
    if len({a.version for a in (inside, address, real) if a is not None}) > 1:
        raise ValueError(f"{inside}, {address} and {real or address} are not of one family")
    return (inside, address), Endpoint(message.tunnel, None if real == address else real)
