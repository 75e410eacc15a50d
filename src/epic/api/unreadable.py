# SPDX-License-Identifier: Apache-2.0
"""Objects that are there and cannot be read: /unreadable. They are served by nobody, and can be removed."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Depends

from epic.api.access.clusters import refuse_unknown_owner
from epic.api.context import Context, Ctx, Principal, admin_only
from epic.api.gateway.sharing import settle_account
from epic.api.legacy.balancers import delete_endpoints, remove_balancer
from epic.api.replies import PREFIX, deleted
from epic.errors import NotFound
from epic.ipam.prefixes import pools_of
from epic.kinds.registry import KINDS
from epic.lifecycle.balancers import owner_of
from epic.lifecycle.salvage import salvage
from epic.lifecycle.tunnels import QUARANTINE
from epic.model.backlog import TunnelBacklog
from epic.model.balancers import LoadBalancer, RemoteEndpoint
from epic.model.base import Metadata, Resource, now
from epic.model.members import GWMember
from epic.model.nodes import Quarantine, QuarantineSpec
from epic.model.resources import GWEndpointSlice, GWProxy, GWRoute, Node, ServicePrefix, Tunnel
from epic.model.siblings import Siblings
from epic.model.values.addresses import Address, order
from epic.model.values.naming import GatewayId
from epic.reconcile.revocation import revoke
from epic.reconcile.siblings import forget_node, relist_gateway
from epic.reconcile.tunnels.tunnelling import Budget, remember
from epic.reconcile.world import World
from epic.store.interface import Change, R, Transaction
from epic.store.objects import Key, Unreadable
from epic.store.queue import enqueue

log = logging.getLogger(__name__)

_OF_TUNNELS = frozenset(kind.kind for kind in (GWProxy, GWRoute, GWEndpointSlice, Tunnel, TunnelBacklog))
"""What tunnels are made of: those of the account are planned anew."""
CLUSTER = "-"
"""The account of objects that are of none, in paths."""

router = APIRouter(prefix="/unreadable", tags=["repair"], dependencies=[Depends(admin_only)])


@router.get("")
def list_all(ctx: Ctx) -> dict[str, Any]:
    """The objects that cannot be read, and why; everything is served without them."""
    return {
        "link": {"self": f"{PREFIX}/unreadable"},
        "items": [
            {
                "kind": found.key.kind,
                "account": found.key.account,
                "name": found.key.name,
                "resourceVersion": str(found.revision),
                "reason": found.reason,
            }
            for found in ctx.store.unreadable()
        ],
    }


@router.delete("/{kind}/{account}/{name}")
def discard(ctx: Ctx, kind: str, account: str, name: str) -> dict[str, str]:
    """Remove an object that cannot be read; of the whole cluster's objects the account is `-`.

    Others may have the addresses and names of a gateway ten minutes later; what EPIC derives, such as
    tunnels, is made anew.
    """
    owner = "" if account == CLUSTER else account
    if kind not in KINDS or not discard_unreadable(ctx, KINDS[kind].model, owner, name):
        raise NotFound(f"there is no {kind} {name!r} here that cannot be read")
    return deleted()


def discard_unreadable(
    ctx: Context, kind: type[Resource], account: str, name: str, asking: Principal | None = None
) -> bool:
    """Remove the object if it cannot be read; False: it can, or is not there.

    Raises Forbidden where who asks may not know whose it is.
    """
    if not _find(ctx.store.unreadable(kind, account), name):
        return False
    if asking is not None:
        refuse_unknown_owner(asking, f"{kind.kind} {name!r}")
    with ctx.current.transaction() as (transaction, world):
        found = _find(transaction.unreadable(kind, account), name)
        if found is None:
            return False
        transaction.delete(kind, account, name)
        _settle(ctx, transaction, world, found)
    log.warning("%s was removed: it could not be read: %s", found.key, found.reason)
    return True


def to_replace(transaction: Transaction, kind: type[R], account: str, name: str) -> R | None:
    """What is to be replaced by an object that was given whole; one that cannot be read goes for that."""
    stored = transaction.find_readable(kind, account, name)
    if stored is None and transaction.exists(kind, account, name):
        transaction.delete(kind, account, name)
    return stored


def _find(unreadable: Iterable[Unreadable], name: str) -> Unreadable | None:
    return next((found for found in unreadable if found.key.name == name), None)


def _settle(ctx: Context, transaction: Transaction, world: World, found: Unreadable) -> None:
    """Do what follows when an object is gone of which nobody knows what it said."""
    key = found.key
    world.apply(Change(0, key.kind, key.account, key.name, None))
    if key.kind == GWProxy.kind:
        _let_gateway_go(ctx, transaction, world, found)
        for member in transaction.by(GWMember, "gateway", (key.account, key.name)):
            transaction.delete(GWMember, member.account, member.name)
            world.drop(member)
    elif key.kind == GWMember.kind:
        settle_account(transaction, world, key.account)
    elif key.kind == LoadBalancer.kind:
        remove_balancer(transaction, world, key.account, key.name)
    elif key.kind == RemoteEndpoint.kind:
        _remove_slice(transaction, world, key)
    elif key.kind == Node.kind:
        forget_node(transaction, key.name)
        revoke(transaction, key.name)
    elif key.kind == Siblings.kind:
        proxy = transaction.find_readable(GWProxy, key.account, key.name)
        if proxy is not None:
            world.note(relist_gateway(transaction, proxy, world.nodes_to_list()))
    if key.kind in _OF_TUNNELS:
        names = {*world.names(key.account), key.name}
        remember(transaction, world, key.account, names, Budget())


def _remove_slice(transaction: Transaction, world: World, key: Key) -> None:
    """Remove what was made for an endpoint."""
    piece = transaction.find_readable(GWEndpointSlice, key.account, key.name)
    if piece is not None and (balancer := owner_of(piece)):
        delete_endpoints(transaction, world, key.account, balancer, [key.name])


def _let_gateway_go(ctx: Context, transaction: Transaction, world: World, found: Unreadable) -> None:
    gateway = GatewayId(found.key.account, found.key.name)
    nodes = {tunnel.spec.epic_node for tunnel in world.tunnels.of(gateway)}
    siblings = transaction.find_readable(Siblings, *gateway)
    if siblings is not None:
        nodes |= {*siblings.spec.nodes, *(former.node for former in siblings.spec.former)}
    if transaction.exists(Siblings, *gateway):
        transaction.delete(Siblings, *gateway)
    nodes = nodes & world.nodes.keys() or set(world.nodes)
    enqueue(transaction, nodes)
    pools = [pool for p in transaction.list(ServicePrefix) for pool in pools_of(p.name, p.spec)]
    for address in sorted(salvage(found.value).addresses, key=order):
        if address in ctx.inside_pool or any(address in pool.range for pool in pools):
            _quarantine(transaction, world, gateway, min(nodes, default=""), address)


def _quarantine(
    transaction: Transaction, world: World, gateway: GatewayId, node: str, address: Address
) -> None:
    """Keep an address from others while nodes may have it still: whether it is public is not known."""
    spec = QuarantineSpec(
        gateway=str(gateway),
        node=node,
        inside_address=address,
        public_address=address,
        until=now() + QUARANTINE,
    )
    name = str(transaction.next_number("quarantine"))
    world.note(transaction.create(Quarantine(metadata=Metadata(name=name), spec=spec)))
