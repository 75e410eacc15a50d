# SPDX-License-Identifier: Apache-2.0
"""Making and removing load balancers and their endpoints inside a transaction, with all that serves them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from epic.api.bodies import ProxySpecInput
from epic.api.gateway.attached import create_attached, delete_attached
from epic.api.gateway.gateways import GatewaySettings, create_gateway, delete_gateway
from epic.api.gateway.names import DNSNames
from epic.errors import Invalid
from epic.kinds.registry import GW_ROUTE, LOAD_BALANCER, REMOTE_ENDPOINT
from epic.kinds.strategy import prepare_for_create
from epic.kinds.validation import refuse_invalid
from epic.lifecycle.balancers import (
    NAME_MAX,
    endpoint_name,
    gateway_of,
    labels_of,
    owner_of,
    routes_of,
)
from epic.model.balancers import LoadBalancer, LoadBalancerSpec, RemoteEndpoint, RemoteEndpointSpec
from epic.model.base import Metadata, Resource, now
from epic.model.resources import GWEndpointSlice, GWProxy, GWRoute, LBServiceGroup
from epic.reconcile.world import World
from epic.store.interface import Transaction

_Made = TypeVar("_Made", bound=Resource)


@dataclass(frozen=True)
class NewBalancer:
    """A load balancer that is to be, and what tells its DNS name from those of others."""

    balancer: LoadBalancer
    namespace: str


def new_balancer(group: LBServiceGroup, name: str, wanted: LoadBalancerSpec, distinct: str) -> NewBalancer:
    """The load balancer that a client calls so; raises Invalid.

    Where the template lets it be shared all who call it so mean one, else each gets its own.
    """
    if not name:
        raise Invalid("service.metadata.name: give the Service's name")
    shared = group.spec.can_be_shared
    whole = f"{group.name}-{name}" if shared else f"{group.name}-{name}-{distinct}"
    if not LOAD_BALANCER.named.allows(whole) or len(whole) > NAME_MAX:
        raise Invalid(
            f"service.metadata.name: {name!r} makes {whole!r}, which should have "
            f"{LOAD_BALANCER.named.right}, and {NAME_MAX} at most; give the Service a shorter name"
        )
    filled_in = {"display_name": wanted.display_name or name, "group": group.name}
    balancer = LoadBalancer(
        metadata=Metadata(name=whole, namespace=group.account),
        spec=wanted.model_copy(update=filled_in),
    )
    refuse_invalid(LOAD_BALANCER, balancer, "service")
    return NewBalancer(balancer, group.name if shared else distinct)


def create_balancer(
    transaction: Transaction,
    world: World,
    group: LBServiceGroup,
    new: NewBalancer,
    settings: GatewaySettings,
    names: DNSNames,
) -> LoadBalancer:
    """A new load balancer with its gateway and routes; raises what a new gateway does."""
    account, name = new.balancer.account, new.balancer.name
    spec = ProxySpecInput.model_validate(gateway_of(new.balancer, new.namespace))
    proxy = create_gateway(transaction, world, group, spec, settings, names)
    world.note(transaction.update(_labelled(proxy, name)))
    routes = [
        _labelled(prepare_for_create(GW_ROUTE, route, now()), name) for route in routes_of(new.balancer)
    ]
    create_attached(transaction, world, account, routes, lambda: {name})
    created = prepare_for_create(LOAD_BALANCER, new.balancer, now())
    return transaction.create(_labelled(created.model_copy(update={"spec": new.balancer.spec}), name))


def remove_balancer(transaction: Transaction, world: World, account: str, name: str) -> None:
    """Remove a load balancer, be it that it can be read or not, with all that was made for it.

    Its gateway stays, as any other, until its nodes and runs have acknowledged each step of that.
    """
    owned: list[GWRoute | GWEndpointSlice] = []
    owned += _made_for(name, transaction.by(GWRoute, "gateway", (account, name)))
    owned += _made_for(name, transaction.by(GWEndpointSlice, "service", (account, name)))
    for endpoint in transaction.by(RemoteEndpoint, "load-balancer", (account, name)):
        transaction.delete(RemoteEndpoint, account, endpoint.name)
    gateways = {name} | world.backends.gateways(account, name)
    delete_attached(transaction, world, account, owned, gateways)
    proxy = transaction.find_readable(GWProxy, account, name)
    if proxy is not None and owner_of(proxy) == name:
        delete_gateway(transaction, proxy)
    if transaction.exists(LoadBalancer, account, name):
        transaction.delete(LoadBalancer, account, name)


def new_endpoint(balancer: LoadBalancer, wanted: RemoteEndpointSpec) -> RemoteEndpoint:
    """The endpoint that a client announces; raises Invalid for one of a cluster that does not serve this."""
    if wanted.cluster not in balancer.spec.upstream_clusters:
        clusters = ", ".join(balancer.spec.upstream_clusters) or "none"
        raise Invalid(
            f"endpoint.spec.cluster: {wanted.cluster!r} is not among the clusters of service "
            f"{balancer.name!r} ({clusters}); announce it there first"
        )
    spec = RemoteEndpointSpec.model_validate(
        {**wanted.model_dump(exclude={"load_balancer"}), "load_balancer": balancer.name}
    )
    name = endpoint_name(balancer.account, balancer.name, spec)
    endpoint = RemoteEndpoint(metadata=Metadata(name=name, namespace=balancer.account), spec=spec)
    refuse_invalid(REMOTE_ENDPOINT, endpoint, "endpoint")
    endpoint = prepare_for_create(REMOTE_ENDPOINT, endpoint, now())
    return _labelled(endpoint.model_copy(update={"spec": spec}), balancer.name)


def create_endpoint(
    transaction: Transaction, world: World, endpoint: RemoteEndpoint, piece: GWEndpointSlice
) -> RemoteEndpoint:
    """A new endpoint with its slice and the tunnels that it needs."""
    account, balancer = endpoint.account, endpoint.spec.load_balancer
    labelled = _labelled(piece, balancer)
    create_attached(
        transaction, world, account, [labelled], lambda: world.backends.gateways(account, balancer)
    )
    return transaction.create(endpoint)


def delete_endpoints(
    transaction: Transaction, world: World, account: str, balancer: str, names: list[str]
) -> None:
    """Delete endpoints of a load balancer with their slices and the tunnels that nobody else needs."""
    pieces = [transaction.find_readable(GWEndpointSlice, account, name) for name in names]
    for name in names:
        if transaction.exists(RemoteEndpoint, account, name):
            transaction.delete(RemoteEndpoint, account, name)
    made = _made_for(balancer, [piece for piece in pieces if piece is not None])
    delete_attached(transaction, world, account, made, world.backends.gateways(account, balancer))


def _labelled(obj: _Made, balancer: str) -> _Made:
    labels = {**obj.metadata.labels, **labels_of(obj.account, balancer)}
    return obj.model_copy(update={"metadata": obj.metadata.model_copy(update={"labels": labels})})


def _made_for(balancer: str, objects: Iterable[_Made]) -> list[_Made]:
    return [obj for obj in objects if owner_of(obj) == balancer]
