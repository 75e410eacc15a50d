"""Pure: what the tunnels that the REST API lists ask of a workload node."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from pydantic import Field, SecretStr, ValidationError

from epic.agent.desired import EndpointKey, key_slots
from epic.agent.netlink import HostRoute, NextHop
from epic.model.base import Kebab
from epic.model.resources import GUE_PORT, TunnelKey

OVERHEAD = 48
"""Bytes that a tunnel adds to an IPv4 packet."""


class TunnelDocument(Kebab):
    """A tunnel as the REST API lists it for its workload end."""

    id: int = Field(ge=1, le=0xFFFFFFFF)
    gateway: str = ""
    service: int = Field(ge=0, le=0xFFFFFFFF)
    inside_address: IPv4Address
    epic_address: IPv4Address
    epic_port: int = Field(default=GUE_PORT, ge=1, le=65535)
    keys: tuple[TunnelKey, ...]
    signing_epoch: int = Field(default=0, ge=0)
    endpoints: tuple[IPv4Address, ...] = ()


class TunnelList(Kebab):
    """The reply, and the data of each event."""

    tunnels: tuple[TunnelDocument, ...] = ()


@dataclass(frozen=True)
class WorkloadTunnel:
    """The workload end of a tunnel."""

    id: int
    gateway: str
    service: int
    inside: IPv4Address
    epic_address: IPv4Address
    epic_port: int
    keys: tuple[bytes | None, bytes | None] = field(repr=False)
    active: int
    endpoints: frozenset[IPv4Address]
    epochs: tuple[int, ...] = ()
    signing: int = 0

    @property
    def signing_key(self) -> bytes:
        """The key of what we send."""
        key = self.keys[self.active]
        if key is None:
            raise ValueError(f"tunnel {self.id} has no key in its active slot")
        return key


def parse(data: object) -> tuple[WorkloadTunnel, ...]:
    """The tunnels of a reply; ValueError says what is wrong with it."""
    try:
        listed = TunnelList.model_validate(data).tunnels
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"the list of tunnels is not as expected at {where}: {first['msg']}") from None
    return tuple(_tunnel(document) for document in listed)


def _tunnel(document: TunnelDocument) -> WorkloadTunnel:
    secrets = ((key.epoch, _secret(key.secret)) for key in document.keys)
    keys = key_slots(secrets, document.signing_epoch)
    return WorkloadTunnel(
        id=document.id,
        gateway=document.gateway,
        service=document.service,
        inside=document.inside_address,
        epic_address=document.epic_address,
        epic_port=document.epic_port,
        keys=keys.slots,
        active=keys.signing % 2,
        endpoints=frozenset(document.endpoints),
        epochs=keys.epochs,
        signing=keys.signing,
    )


def _secret(secret: SecretStr) -> bytes:
    try:
        return bytes.fromhex(secret.get_secret_value())
    except ValueError:
        raise ValueError("a tunnel's key is not written in hexadecimal digits") from None


def merge(lists: Iterable[tuple[WorkloadTunnel, ...]]) -> tuple[dict[int, WorkloadTunnel], list[str]]:
    """The tunnels of all servers by id, and complaints: ids and inside addresses must be unique on a node."""
    tunnels: dict[int, WorkloadTunnel] = {}
    complaints: list[str] = []
    insides: dict[IPv4Address, int] = {}
    for tunnel in (t for listed in lists for t in listed):
        other = tunnels.get(tunnel.id)
        taken = insides.get(tunnel.inside)
        if (other is not None and other != tunnel) or taken not in {None, tunnel.id}:
            complaints.append(
                f"tunnel {tunnel.id} of gateway {tunnel.gateway} has the number or inside address of another "
                "EPIC cluster's tunnel; this node can serve only one of them"
            )
            continue
        tunnels[tunnel.id] = tunnel
        insides[tunnel.inside] = tunnel.id
    return tunnels, complaints


@dataclass(frozen=True)
class Observed:
    """What is on the node; None for a tunnel that an earlier agent made."""

    tunnels: Mapping[int, WorkloadTunnel | None]
    endpoints: Mapping[EndpointKey, int]
    routes: frozenset[HostRoute]


@dataclass(frozen=True)
class Plan:
    """What to do, in the order of the fields."""

    remove_routes: tuple[HostRoute, ...]
    delete_endpoints: tuple[EndpointKey, ...]
    delete_tunnels: tuple[int, ...]
    set_tunnels: tuple[WorkloadTunnel, ...]
    set_endpoints: tuple[tuple[EndpointKey, int], ...]
    set_routes: tuple[HostRoute, ...]


def plan(
    tunnels: Mapping[int, WorkloadTunnel],
    routes: Iterable[HostRoute],
    observed: Observed,
    kept: Collection[EndpointKey] = (),
) -> Plan:
    """From what is there to `tunnels` and `routes`; what carries the endpoints of `kept` stays for now."""
    endpoints = {(t.inside, address): t.id for t in tunnels.values() for address in t.endpoints}
    wanted = frozenset(routes)
    gone = observed.endpoints.keys() - endpoints.keys() - set(kept)
    used = {id_ for key, id_ in observed.endpoints.items() if key not in gone}
    destinations = {r.destination for r in wanted} | {key[0] for key in kept if key in observed.endpoints}
    return Plan(
        remove_routes=tuple(
            sorted((r for r in observed.routes if r.destination not in destinations), key=_destination)
        ),
        delete_endpoints=tuple(sorted(gone)),
        delete_tunnels=tuple(sorted(observed.tunnels.keys() - tunnels.keys() - used)),
        set_tunnels=tuple(t for _, t in sorted(tunnels.items()) if observed.tunnels.get(t.id) != t),
        set_endpoints=tuple(sorted(e for e in endpoints.items() if observed.endpoints.get(e[0]) != e[1])),
        set_routes=tuple(sorted(wanted - observed.routes, key=_destination)),
    )


def leaving(
    tunnels: Mapping[int, WorkloadTunnel], observed: Observed, since: Mapping[EndpointKey, float], now: float
) -> dict[EndpointKey, float]:
    """Endpoints that are listed no more, and since when. Answers to requests under way still need them."""
    listed = {(t.inside, address) for t in tunnels.values() for address in t.endpoints}
    return {key: since.get(key, now) for key in observed.endpoints if key not in listed}


def routes(
    tunnels: Mapping[int, WorkloadTunnel],
    next_hops: Mapping[IPv4Address, NextHop],
    underlay: str,
    underlay_mtu: int,
) -> Iterator[HostRoute]:
    """Replies to an inside address leave by the underlay, to be encapsulated there, and fit into a tunnel."""
    for tunnel in tunnels.values():
        hop = next_hops.get(tunnel.epic_address)
        if hop is not None and hop.interface == underlay:
            yield HostRoute(tunnel.inside, underlay, hop.via, underlay_mtu - OVERHEAD)


def _destination(route: HostRoute) -> IPv4Address:
    return route.destination
