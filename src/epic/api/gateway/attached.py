# SPDX-License-Identifier: Apache-2.0
"""Adding and removing what is behind gateways, routes and EndpointSlices, inside a transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from epic.api.account.account_limits import (
    check_room_for_one,
    within_bytes_limit,
    within_slice_limits,
    within_tunnel_limit,
)
from epic.errors import Conflict
from epic.lifecycle.balancers import owner_of
from epic.model.base import Resource
from epic.model.resources import Account, GWEndpointSlice, GWRoute
from epic.reconcile.tunnels.tunnel_room import within_room_for_endpoints
from epic.reconcile.tunnels.tunnelling import replan
from epic.reconcile.world import World
from epic.store.interface import Transaction

Attached = TypeVar("Attached", GWRoute, GWEndpointSlice)


def create_attached(
    transaction: Transaction,
    world: World,
    account: str,
    objects: Iterable[Attached],
    gateways: Callable[[], set[str]],
) -> list[Attached]:
    """Create objects of the account within its limits; `gateways` are those that then need other tunnels."""
    transaction.get(Account, "", account)
    created: list[Attached] = []
    with within_tunnel_limit(transaction, world, account):
        with (
            within_slice_limits(transaction, world, account),
            within_bytes_limit(transaction, world, account),
            within_room_for_endpoints(world, account),
        ):
            for obj in objects:
                check_room_for_one(transaction, world, obj)
                created.append(world.note(transaction.create(obj)))
        replan(transaction, world, account, gateways())
    return created


def delete_attached(
    transaction: Transaction,
    world: World,
    account: str,
    objects: Sequence[GWRoute | GWEndpointSlice],
    gateways: set[str],
) -> None:
    """Delete objects of the account; `gateways` are those whose tunnels they decided on."""
    for obj in objects:
        transaction.delete(type(obj), account, obj.name)
        world.drop(obj)
    replan(transaction, world, account, gateways)


def refuse_if_of_balancer(obj: Resource) -> None:
    """Raise Conflict for what was made for a load balancer, and goes with it."""
    if owner := owner_of(obj):
        raise Conflict(
            f"{obj.kind} {obj.name!r} was made for load balancer {owner!r}; change or delete that, at "
            f"accounts/{obj.account}/services/{owner}"
        )
