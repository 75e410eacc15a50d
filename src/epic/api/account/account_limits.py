# SPDX-License-Identifier: Apache-2.0
"""What an account may have besides gateways: workload nodes, endpoints and tunnels.

Nodes of EPIC have room for so many tunnels, and what one account takes others have not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from epic.errors import QuotaExceeded
from epic.model.base import Resource
from epic.model.resources import Account, GWEndpointSlice, GWRoute
from epic.reconcile.counts.backends import endpoint_count, named_nodes
from epic.reconcile.tunnels.tunnel_room import excess
from epic.reconcile.world import World
from epic.store.interface import Transaction

_HELP = "delete what is not needed, or ask the platform's administrators for a higher"


def check_room_for_one(transaction: Transaction, world: World, obj: GWRoute | GWEndpointSlice) -> None:
    """Raise QuotaExceeded if the account has as many objects of the kind as it may have."""
    limits = transaction.get(Account, "", obj.account).spec
    what, name, most = (
        ("routes", "routeLimit", limits.route_limit)
        if isinstance(obj, GWRoute)
        else ("EndpointSlices", "sliceLimit", limits.slice_limit)
    )
    count = world.backends.owned(obj.account, obj.kind)
    if count >= most:
        raise QuotaExceeded(f"account {obj.account!r} has {count} {what} and may have {most}; {_HELP} {name}")


@contextmanager
def within_bytes_limit(transaction: Transaction, world: World, account: str) -> Iterator[None]:
    """Raise QuotaExceeded if the block made routes, slices and members exceed their limit, or by more."""
    before = world.sizes.of(account)
    yield
    size, limit = world.sizes.of(account), transaction.get(Account, "", account).spec.bytes_limit
    if size > max(limit, before):
        raise QuotaExceeded(
            f"the routes, EndpointSlices and members of account {account!r} would take {size} bytes of "
            f"memory and may take {limit}; they take {before}; {_HELP} bytesLimit"
        )


@contextmanager
def within_slice_limits(transaction: Transaction, world: World, account: str) -> Iterator[None]:
    """Raise QuotaExceeded if the block, which writes a slice, made the account exceed a limit, or by more.

    What exceeds a limit that was lowered may become less. Tunnels are to be planned after it: what is refused
    here makes none.
    """
    nodes_before, endpoints_before = world.backends.named(account)
    yield
    nodes, endpoints = world.backends.named(account)
    limits = transaction.get(Account, "", account).spec
    if nodes > max(limits.workload_node_limit, nodes_before):
        raise QuotaExceeded(
            f"account {account!r} would have {nodes} workload nodes and may have "
            f"{limits.workload_node_limit}; it has {nodes_before}. Name only nodes that host endpoints, "
            f"{_HELP} workloadNodeLimit"
        )
    if endpoints > max(limits.endpoint_limit, endpoints_before):
        raise QuotaExceeded(
            f"account {account!r} would have {endpoints} endpoints and may have "
            f"{limits.endpoint_limit}; it has {endpoints_before}; {_HELP} endpointLimit"
        )


@contextmanager
def within_tunnel_limit(transaction: Transaction, world: World, account: str) -> Iterator[None]:
    """Raise QuotaExceeded if what the block changed asks for more tunnels than may be, and than before.

    The tunnels may all be made yet: it is what gateways are to have that counts.
    """
    before = excess(transaction, world, account)
    yield
    after = excess(transaction, world, account)
    if after > before:
        limit = transaction.get(Account, "", account).spec.tunnel_limit
        going = len(world.tunnels.going(account))
        raise QuotaExceeded(
            f"account {account!r} may have {limit} tunnels, one for each instance of a gateway "
            f"and workload node with endpoints behind it; {after} would be missing. "
            f"Of those that it had {going} were deleted and are not gone yet; "
            f"{_HELP} tunnelLimit"
        )


def takes_more(before: Resource, after: Resource) -> bool:
    """Whether a slice that is replaced names other nodes or has more endpoints than before."""
    if not isinstance(before, GWEndpointSlice) or not isinstance(after, GWEndpointSlice):
        return False
    more_nodes = bool(named_nodes(after) - named_nodes(before))
    return more_nodes or endpoint_count(after) > endpoint_count(before)
