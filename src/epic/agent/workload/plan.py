# SPDX-License-Identifier: Apache-2.0
"""Pure: what the tunnels that a server lists ask of a workload node."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address

from google.protobuf.message import DecodeError
from pydantic import Field, SecretStr, ValidationError

from epic.agent.netlink.objects import HostRoute, ResolvedRoute
from epic.agent.netlink.route_cache import program_route
from epic.agent.settings import WorkloadUnderlay
from epic.agent.tunnel.endpoints import EndpointKey
from epic.agent.tunnel.keys import key_slots
from epic.bpf import dataplane as bpf
from epic.bpf.dataplane import Address
from epic.bpf.packets.wire import overhead
from epic.model.base import Kebab
from epic.model.values.keys import EpochKey
from epic.model.values.naming import GUE_PORT
from epic.proto import epic_pb2

DUMMIES: Mapping[int, Address] = {4: IPv4Address("169.254.231.28"), 6: IPv6Address("fe80::e71c")}
"""Next hops of replies by IP version. They need only resolve: the programs write the outer link header."""

DUMMY_LINK_ADDRESS = bytes.fromhex("02000000e71c")


class TunnelDocument(Kebab):
    """A tunnel as it is kept on disk."""

    id: int = Field(ge=1, le=0xFFFFFFFF)
    gateway: str = ""
    service: int = Field(ge=0, le=0xFFFFFFFF)
    inside_address: IPv4Address
    inside_address6: IPv6Address
    epic_address: IPv4Address | IPv6Address
    epic_port: int = Field(default=GUE_PORT, ge=1, le=65535)
    keys: tuple[EpochKey, ...]
    signing_epoch: int = Field(ge=1)
    endpoints: tuple[IPv4Address | IPv6Address, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkloadTunnel:
    """The workload end of a tunnel."""

    id: int
    gateway: str
    service: int
    inside: IPv4Address
    inside6: IPv6Address
    epic_address: Address
    epic_port: int
    keys: tuple[bytes | None, bytes | None] = field(repr=False)
    active: int
    endpoints: tuple[Address, ...]
    epochs: tuple[int, ...] = ()
    signing: int = 0

    def pairs(self) -> Iterator[EndpointKey]:
        """Who talks through it: the inside address of the endpoint's family, and the endpoint."""
        for address in self.endpoints:
            yield (self.inside if address.version == 4 else self.inside6), address

    @property
    def signing_key(self) -> bytes:
        """The key of what we send."""
        key = self.keys[self.active]
        if key is None:
            raise ValueError(f"tunnel {self.id} has no key in its active slot")
        return key


def read_resource(content: bytes) -> WorkloadTunnel:
    """The tunnel of a resource; ValueError says what is wrong with it."""
    try:
        told = epic_pb2.WorkloadTunnel.FromString(content)
    except DecodeError as error:
        raise ValueError(f"a tunnel cannot be read: {error}") from error
    return read(
        {
            "id": told.id,
            "gateway": told.gateway,
            "service": told.service,
            "inside-address": told.inside_address,
            "inside-address6": told.inside_address6,
            "epic-address": told.epic_address,
            "epic-port": told.epic_port,
            "keys": [{"epoch": key.epoch, "secret": key.secret.hex()} for key in told.keys],
            "signing-epoch": told.signing_epoch,
            "endpoints": list(told.endpoints),
        }
    )


def document(tunnel: WorkloadTunnel) -> dict[str, object]:
    """The tunnel as `read` takes it."""
    return {
        "id": tunnel.id,
        "gateway": tunnel.gateway,
        "service": tunnel.service,
        "inside-address": str(tunnel.inside),
        "inside-address6": str(tunnel.inside6),
        "epic-address": str(tunnel.epic_address),
        "epic-port": tunnel.epic_port,
        "keys": [
            {"epoch": epoch, "secret": (tunnel.keys[epoch % 2] or b"").hex()} for epoch in tunnel.epochs
        ],
        "signing-epoch": tunnel.signing,
        "endpoints": [str(address) for address in tunnel.endpoints],
    }


def read(data: object) -> WorkloadTunnel:
    """The tunnel of a document; ValueError says what is wrong with it."""
    try:
        document = TunnelDocument.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        name = f"tunnel {data['id']}" if isinstance(data, dict) and "id" in data else "a tunnel"
        raise ValueError(f"{name} is not as expected at {where}: {first['msg']}") from None
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
        endpoints=tuple(sorted(set(document.endpoints), key=lambda a: (a.version, a))),
        epochs=keys.epochs,
        signing=keys.signing,
        inside6=document.inside_address6,
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
    insides: dict[Address, int] = {}
    for tunnel in (t for listed in lists for t in listed):
        other = tunnels.get(tunnel.id)
        own = (tunnel.inside, tunnel.inside6)
        taken = {insides.get(inside, tunnel.id) for inside in own}
        if (other is not None and other != tunnel) or taken != {tunnel.id}:
            complaints.append(
                f"tunnel {tunnel.id} of gateway {tunnel.gateway} has the number or inside address of another "
                "EPIC cluster's tunnel; this node can serve only one of them"
            )
            continue
        tunnels[tunnel.id] = tunnel
        insides.update(dict.fromkeys(own, tunnel.id))
    return tunnels, complaints


@dataclass(frozen=True, slots=True)
class DesiredState:
    """What there should be; tunnels without an end have no route to the EPIC node at present."""

    tunnels: Mapping[int, WorkloadTunnel]
    ends: Mapping[int, bpf.Tunnel]
    endpoints: Mapping[EndpointKey, bpf.Endpoint]
    routes: frozenset[HostRoute]


@dataclass(frozen=True, slots=True)
class Observed:
    """What is on the node; None for a tunnel that an earlier agent made, or whose interface is another."""

    tunnels: Mapping[int, bpf.Tunnel | None]
    endpoints: Mapping[EndpointKey, bpf.Endpoint]
    routes: frozenset[HostRoute]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in the order of the fields."""

    remove_routes: frozenset[HostRoute]
    delete_endpoints: frozenset[EndpointKey]
    delete_tunnels: tuple[int, ...]
    set_tunnels: tuple[bpf.Tunnel, ...]
    set_endpoints: Mapping[EndpointKey, bpf.Endpoint]
    set_routes: tuple[HostRoute, ...]


def ends(
    tunnels: Iterable[WorkloadTunnel],
    found: Mapping[Address, ResolvedRoute],
    underlay: WorkloadUnderlay,
    direct: Collection[int],
) -> dict[int, bpf.Tunnel]:
    """Our ends of the tunnels whose EPIC node can be reached; `direct` have no NAT on their way."""
    return {
        tunnel.id: bpf.Tunnel(
            id=tunnel.id,
            service=tunnel.service,
            inside=tunnel.inside,
            inside6=tunnel.inside6,
            local=resolved.local,
            remote=tunnel.epic_address,
            remote_port=tunnel.epic_port,
            underlay=resolved.interface,
            interface=None,
            keys=tunnel.keys,
            active=tunnel.active,
            route=program_route(tunnel.epic_address, resolved),
            lanes=underlay.lanes,
            spread=underlay.spread and tunnel.id in direct,
            checksum=underlay.checksum,
        )
        for tunnel in tunnels
        if (resolved := found.get(tunnel.epic_address)) is not None
    }


def endpoints(
    tunnels: Iterable[WorkloadTunnel], pods: Mapping[Address, str]
) -> dict[EndpointKey, bpf.Endpoint]:
    """Who talks through which tunnel; `pods` are delivered to by their interface, past the stack."""
    found: dict[EndpointKey, bpf.Endpoint] = {}
    for tunnel in tunnels:
        plain = bpf.Endpoint(tunnel.id)
        for key in tunnel.pairs():
            pod = pods.get(key[1])
            found[key] = plain if pod is None else bpf.Endpoint(tunnel.id, interface=pod)
    return found


def routes(
    tunnels: Iterable[WorkloadTunnel], our_ends: Mapping[int, bpf.Tunnel], mtus: Mapping[str, int]
) -> Iterator[HostRoute]:
    """Replies to an inside address leave by the underlay, to be encapsulated there, and fit into a tunnel."""
    for tunnel in tunnels:
        end = our_ends.get(tunnel.id)
        if end is None or end.underlay not in mtus:
            continue
        mtu = mtus[end.underlay] - overhead(tunnel.epic_address)
        for inside in {inside for inside, _ in tunnel.pairs()}:
            yield HostRoute(inside, end.underlay, DUMMIES[inside.version], mtu)


def only_own_removals(plan: Plan, observed: Observed) -> Plan:
    """The plan of who does not know the whole of what is wanted: what an earlier agent made stays."""
    own = {id_: end for id_, end in observed.tunnels.items() if end is not None}
    insides = {inside for end in own.values() for inside in (end.inside, end.inside6)}
    return replace(
        plan,
        remove_routes=frozenset(r for r in plan.remove_routes if r.destination in insides),
        delete_endpoints=frozenset(k for k in plan.delete_endpoints if observed.endpoints[k].tunnel in own),
        delete_tunnels=tuple(id_ for id_ in plan.delete_tunnels if id_ in own),
    )


def plan(wanted: DesiredState, observed: Observed, kept: Collection[EndpointKey] = ()) -> Plan:
    """From what is there to what should be; what carries the endpoints of `kept` stays for now."""
    gone = observed.endpoints.keys() - wanted.endpoints.keys() - set(kept)
    used = {endpoint.tunnel for key, endpoint in observed.endpoints.items() if key not in gone}
    destinations = {r.destination for r in wanted.routes} | {k[0] for k in kept if k in observed.endpoints}
    waiting = (t for t in wanted.tunnels.values() if t.id not in wanted.ends)
    destinations |= {inside for tunnel in waiting for inside, _ in tunnel.pairs()}
    missing = {k: e for k, e in wanted.endpoints.items() if observed.endpoints.get(k) != e}
    return Plan(
        remove_routes=frozenset(r for r in observed.routes if r.destination not in destinations),
        delete_endpoints=frozenset(gone),
        delete_tunnels=tuple(sorted(observed.tunnels.keys() - wanted.tunnels.keys() - used)),
        set_tunnels=tuple(end for id_, end in wanted.ends.items() if observed.tunnels.get(id_) != end),
        set_endpoints=missing,
        set_routes=tuple(wanted.routes - observed.routes),
    )


def leaving(
    wanted: DesiredState, observed: Observed, since: Mapping[EndpointKey, float], now: float
) -> dict[EndpointKey, float]:
    """Endpoints that are listed no more, and since when. Answers to requests under way still need them."""
    return {key: since.get(key, now) for key in observed.endpoints.keys() - wanted.endpoints.keys()}
