# SPDX-License-Identifier: Apache-2.0
"""Short ways to write what the agent works with."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

from google.protobuf.message import Message

from epic.ads.snapshot import Versioned, versioned
from epic.agent.gateway.control.resource_cache import ResourceCache
from epic.agent.gateway.desired import Desired, Element, Instance, Tunnel
from epic.agent.tunnel.endpoints import EndpointKey
from epic.agent.workload.plan import WorkloadTunnel
from epic.bpf.dataplane import Address, Endpoint
from epic.ipam.networks import DEFAULT_POOLS, inside6
from epic.model.values.naming import instance_interface
from epic.proto import epic_pb2

KEY = bytes(range(16))
PUBLIC, PUBLIC6 = IPv4Address("203.0.113.7"), IPv6Address("2001:db8::7")
INSIDE, INSIDE6 = IPv4Address("100.64.0.1"), IPv6Address("fd65:7069:6300::6440:1")
A, B = IPv4Address("192.168.50.11"), IPv4Address("192.168.50.12")
C = IPv6Address("fd00:10::12")
VIA = Endpoint(7)
"""An endpoint behind tunnel 7."""

WEB = "shop.web"
INTERFACE = instance_interface(WEB, INSIDE)
HTTP = Element(PUBLIC, "tcp", 80)


def compare(cache: ResourceCache, there: dict[EndpointKey, Endpoint]) -> None:
    """Let the cache know which endpoints the programs have."""
    for _ in cache.dirty.endpoints.compare(cache.endpoints(), there, cache.known):
        pass


def six_of(inside: IPv4Address) -> IPv6Address:
    """The IPv6 inside address of the same instance."""
    return inside6(DEFAULT_POOLS.inside6, inside)


def instance(gateway: str = WEB, inside: IPv4Address = INSIDE, public: IPv4Address = PUBLIC) -> Instance:
    ports = frozenset({Element(public, "tcp", 80)})
    interface = instance_interface(gateway, inside)
    return Instance(gateway, (public,), inside, six_of(inside), interface, ports, "r1")


def tunnel(id_: int = 7, gateway: str = WEB, inside: IPv4Address = INSIDE) -> Tunnel:
    return Tunnel(id_, gateway, 3, inside, six_of(inside), (None, KEY), 1)


def wanted(*addresses: Address) -> Desired:
    """One gateway with endpoints at these addresses."""
    return Desired(
        instances={WEB: instance()},
        tunnels={7: tunnel()},
        endpoints={(INSIDE, a): VIA for a in addresses},
    )


def workload_tunnel(
    *endpoints: Address,
    id_: int = 7,
    inside: IPv4Address = INSIDE,
    epic: Address | None = None,
) -> WorkloadTunnel:
    return WorkloadTunnel(
        id=id_,
        gateway=WEB,
        service=3,
        inside=inside,
        inside6=six_of(inside),
        epic_address=epic or IPv4Address("172.30.11.2"),
        epic_port=6080,
        keys=(None, KEY),
        active=1,
        endpoints=endpoints,
        epochs=(1,),
        signing=1,
    )


def instance_message(**changes: object) -> epic_pb2.Instance:
    fields: dict[str, object] = {
        "gateway": WEB,
        "account": "shop",
        "service": 3,
        "public_addresses": [str(PUBLIC)],
        "inside_address": str(INSIDE),
        "inside_address6": str(INSIDE6),
        "interface": INTERFACE,
        "ports": [epic_pb2.Port(number=80, protocol="tcp")],
        "revision": "r1",
    }
    return epic_pb2.Instance(**{**fields, **changes})


def tunnel_message(*keys: tuple[int, bytes], signing: int = 0) -> epic_pb2.Tunnel:
    """If it is not said which key signs, the newest does."""
    return epic_pb2.Tunnel(
        id=7,
        gateway=WEB,
        service=3,
        inside_address=str(INSIDE),
        inside_address6=str(INSIDE6),
        keys=[epic_pb2.Key(epoch=epoch, secret=secret) for epoch, secret in keys],
        signing_epoch=signing or max((epoch for epoch, _ in keys), default=0),
    )


def endpoint_message(address: Address, real: str = "", inside: Address = INSIDE) -> epic_pb2.Endpoint:
    return epic_pb2.Endpoint(
        gateway=WEB, inside_address=str(inside), address=str(address), tunnel=7, real_address=real
    )


SIBLINGS = (
    epic_pb2.Sibling(node="epic3", index=2, address="172.30.11.4", draining=True),
    epic_pb2.Sibling(node="epic1", index=0, address="172.30.11.2"),
    epic_pb2.Sibling(node="epic2", index=1, address="172.30.11.3"),
)


def siblings_message(**changes: object) -> epic_pb2.Siblings:
    """Three siblings; this node is epic1, and epic3 drains."""
    fields: dict[str, object] = {
        "gateway": WEB,
        "public_addresses": [str(PUBLIC)],
        "siblings": SIBLINGS,
        "keys": [epic_pb2.Key(epoch=3, secret=KEY)],
        "signing_epoch": 3,
    }
    return epic_pb2.Siblings(**{**fields, **changes})


def named(**messages: Message) -> Mapping[str, Versioned]:
    return {name: versioned(message) for name, message in messages.items()}
