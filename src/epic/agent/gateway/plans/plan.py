# SPDX-License-Identifier: Apache-2.0
"""Pure: from what is wanted and what is there to what must be done, in order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import NamedTuple

from epic.agent.gateway.desired import Desired, Instance, Tunnel
from epic.agent.tunnel.endpoints import EndpointKey
from epic.bpf.dataplane import Address, Endpoint

NOT_FORWARDED = "the kernel forwards no IPv6: set gateway_node_forward_ipv6 for this node"


class Attachment(NamedTuple):
    """An interface that is attached, and for whom."""

    link: int
    insides: tuple[Address, ...]
    publics: tuple[Address, ...]


def attachment(instance: Instance, link: int) -> Attachment:
    """What an instance needs at its interface."""
    return Attachment(link, instance.insides, instance.publics)


def announceable(
    instance: Instance, forwards6: bool, left_out: Collection[Address] = ()
) -> tuple[Address, ...]:
    """Those of its public addresses, but for those `left_out`, whose packets the node passes on to it.

    To announce an address and pass on nothing that is sent to it would be worse than not to announce it.
    """
    here = (public for public in instance.publics if forwards6 or public.version == 4)
    return tuple(public for public in here if public not in left_out)


def unforwarded(instances: Mapping[str, Instance], forwards6: bool) -> list[str]:
    """Those of these gateways that have an address which cannot be announced for want of forwarding."""
    return [g for g, instance in instances.items() if announceable(instance, forwards6) != instance.publics]


def say_unforwarded(instances: Mapping[str, Instance], forwards6: bool) -> str:
    """What is wrong with the node when there are such gateways; or empty."""
    count = len(unforwarded(instances, forwards6))
    return f"the IPv6 addresses of {count} gateways are not announced: {NOT_FORWARDED}" if count else ""


@dataclass(frozen=True)
class Observed:
    """What is on the node; of tunnels and endpoints only those that must be looked at.

    What an earlier agent made is known by name only and is None. So is a tunnel whose route to its far end,
    or whose instance's interface, is another now.
    """

    links: Mapping[str, int]
    """The interfaces that are up, by name: their indexes."""
    attached: Mapping[str, Attachment | None]
    tunnels: Mapping[int, Tunnel | None]
    endpoints: Mapping[EndpointKey, Endpoint]
    delivered: Mapping[Address, int]
    """Where packets to public and inside addresses are delivered: the index of the interface."""
    forwards6: bool = True
    """Whether the kernel passes IPv6 packets on."""


@dataclass(frozen=True)
class AttachInstance:
    """Take the packets of an instance's interface."""

    instance: Instance
    link: int

    def __str__(self) -> str:
        return f"attach interface {self.instance.interface} of gateway {self.instance.gateway}"


@dataclass(frozen=True)
class DetachInstance:
    """Leave an interface alone, or forget one that is gone."""

    interface: str

    def __str__(self) -> str:
        return f"detach interface {self.interface}"


@dataclass(frozen=True)
class SetTunnel:
    """Make or change a tunnel."""

    tunnel: Tunnel

    def __str__(self) -> str:
        return f"set tunnel {self.tunnel.id} of gateway {self.tunnel.gateway}"


@dataclass(frozen=True)
class DeleteTunnel:
    """Remove a tunnel."""

    id: int

    def __str__(self) -> str:
        return f"delete tunnel {self.id}"


@dataclass(frozen=True)
class SetEndpoints:
    """Send packets for a gateway's backends through tunnels."""

    gateway: str
    endpoints: Mapping[EndpointKey, Endpoint]

    def __str__(self) -> str:
        return f"send packets to {_addresses(self.endpoints)} of gateway {self.gateway} through tunnels"


@dataclass(frozen=True)
class DeleteEndpoints:
    """Drop packets for backends."""

    keys: frozenset[EndpointKey]

    def __str__(self) -> str:
        return f"drop packets to {_addresses(self.keys)}"


def _addresses(keys: Collection[EndpointKey]) -> str:
    return str(next(iter(keys))[1]) if len(keys) == 1 else f"{len(keys)} addresses"


@dataclass(frozen=True)
class DeliverTo:
    """Route addresses of one family of an instance to its interface."""

    instance: Instance
    link: int
    addresses: tuple[Address, ...]

    def __str__(self) -> str:
        return f"deliver packets of gateway {self.instance.gateway} to {self.instance.interface}"


Action = (
    AttachInstance | DetachInstance | SetTunnel | DeleteTunnel | SetEndpoints | DeleteEndpoints | DeliverTo
)


def additions(desired: Desired, observed: Observed) -> list[Action]:
    """What must be there before Envoys hear of new endpoints and before gateways are announced."""
    actions: list[Action] = []
    for _, instance in sorted(desired.instances.items()):
        link = observed.links.get(instance.interface)
        if link is None:
            continue
        if observed.attached.get(instance.interface) != attachment(instance, link):
            actions.append(AttachInstance(instance, link))
        here = (*announceable(instance, observed.forwards6), instance.inside)
        for version in (4, 6):
            addresses = tuple(address for address in here if address.version == version)
            if any(observed.delivered.get(address) != link for address in addresses):
                actions.append(DeliverTo(instance, link, addresses))
    plugged = {g for g, i in desired.instances.items() if i.interface in observed.links}
    for id_, tunnel in sorted(desired.tunnels.items()):
        if tunnel.gateway in plugged and observed.tunnels.get(id_) != tunnel:
            actions.append(SetTunnel(tunnel))
    actions += _new_endpoints(desired, observed, plugged)
    return actions


def _new_endpoints(desired: Desired, observed: Observed, plugged: Collection[str]) -> Iterator[SetEndpoints]:
    found: dict[str, dict[EndpointKey, Endpoint]] = {}
    for key, endpoint in desired.endpoints.items():
        if observed.endpoints.get(key) == endpoint:
            continue
        gateway = desired.tunnels[endpoint.tunnel].gateway
        # An endpoint needs its tunnel, and that its instance.
        if gateway in plugged or endpoint.tunnel in observed.tunnels:
            found.setdefault(gateway, {})[key] = endpoint
    for gateway, endpoints in sorted(found.items()):
        yield SetEndpoints(gateway, endpoints)


def removals(desired: Desired, observed: Observed, released: Set[EndpointKey]) -> list[Action]:
    """What may go: of gateways that are gone, and endpoints that the Envoys of others have let go of."""
    actions: list[Action] = []
    gateways = gateways_by_inside(desired.instances)
    unwanted = _unwanted(desired, observed)
    gone = frozenset(unwanted & released).union(key for key in unwanted - released if key[0] not in gateways)
    if gone:
        actions.append(DeleteEndpoints(gone))
    kept = {endpoint.tunnel for key, endpoint in observed.endpoints.items() if key not in gone}
    actions += (DeleteTunnel(id_) for id_ in sorted(observed.tunnels.keys() - desired.tunnels.keys() - kept))
    wanted = {i.interface for i in desired.instances.values()}
    actions += (DetachInstance(interface) for interface in sorted(observed.attached.keys() - wanted))
    return actions


def leaving(desired: Desired, observed: Observed) -> dict[str, set[EndpointKey]]:
    """Endpoints that must stay until the Envoys of their gateways let go of them, by gateway."""
    gateways = gateways_by_inside(desired.instances)
    found: dict[str, set[EndpointKey]] = {}
    for key in _unwanted(desired, observed):
        if (gateway := gateways.get(key[0])) is not None:
            found.setdefault(gateway, set()).add(key)
    return found


def _unwanted(desired: Desired, observed: Observed) -> set[EndpointKey]:
    # Sets that are made of dictionaries take no hash anew, and these are all that it costs.
    return set(observed.endpoints) - set(desired.endpoints)


def gateways_by_inside(instances: Mapping[str, Instance]) -> dict[Address, str]:
    """Whose inside address each is."""
    return {inside: g for g, instance in instances.items() for inside in instance.insides}


def gateway_of(action: Action) -> str | None:
    """The one gateway that an addition is for."""
    match action:
        case AttachInstance(instance):
            return instance.gateway
        case SetTunnel(tunnel):
            return tunnel.gateway
        case SetEndpoints(gateway, _):
            return gateway
        case DeliverTo(instance):
            return instance.gateway
        case _:
            return None


def is_of_second_family(action: Action) -> bool:
    """Whether a gateway is served at its IPv4 address all the same when this fails."""
    return (
        isinstance(action, DeliverTo)
        and action.addresses[0].version == 6
        and any(public.version == 4 for public in action.instance.publics)
    )


def undelivered(failed: Iterable[Action]) -> frozenset[Address]:
    """Addresses that are not announced, though their gateways are at others, after these failed."""
    return frozenset(
        address
        for action in failed
        if isinstance(action, DeliverTo) and is_of_second_family(action)
        for address in action.addresses
    )


def unready(failed: Iterable[Action]) -> set[str]:
    """Gateways whose Envoys are not told of new endpoints, for these have no tunnels yet.

    Endpoints that are not there themselves are left out of what Envoys are told.
    """
    lacking = (a for a in failed if not (isinstance(a, SetEndpoints) or is_of_second_family(a)))
    return {gateway for action in lacking if (gateway := gateway_of(action)) is not None}


def unprogrammed(desired: Desired, observed: Observed, failed: Collection[Action]) -> set[str]:
    """Gateways that must not be announced yet: without interface, or with an addition that failed."""
    mine = {gateway_of(action) for action in failed if not is_of_second_family(action)}
    return {g for g, i in desired.instances.items() if i.interface not in observed.links or g in mine}


def cut_off(desired: Desired, observed: Observed, failed: Collection[Action]) -> set[str]:
    """Gateways that cannot serve at all: packets do not reach their Envoys, or pass our programs by."""
    cutting = (a for a in failed if isinstance(a, AttachInstance | DeliverTo) and not is_of_second_family(a))
    mine = {gateway_of(action) for action in cutting}
    return {g for g, i in desired.instances.items() if i.interface not in observed.links or g in mine}
