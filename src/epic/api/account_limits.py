# SPDX-License-Identifier: Apache-2.0
"""What an account may have besides gateways: workload nodes, endpoints and tunnels.

Nodes of EPIC have room for so many tunnels, and what one account takes others have not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from epic.errors import QuotaExceeded
from epic.model.base import Resource
from epic.model.resources import Account, GWEndpointSlice, GWProxy, Tunnel
from epic.store.interface import Reader, Transaction

_HELP = "delete what is not needed, or ask the platform's administrators for a higher"


@contextmanager
def within_slice_limits(transaction: Transaction, account: str) -> Iterator[None]:
    """Raise QuotaExceeded if the block, which writes a slice, made the account exceed a limit, or by more.

    What exceeds a limit that was lowered may become less. Tunnels are to be planned after it: what is refused
    here makes none.
    """
    nodes_before, endpoints_before = _named(transaction, account)
    yield
    nodes, endpoints = _named(transaction, account)
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
def within_tunnel_limit(transaction: Transaction, account: str) -> Iterator[None]:
    """Raise QuotaExceeded if the block, which plans tunnels, left out more workload nodes than before."""
    before = _unconnected(transaction, account)
    yield
    after = _unconnected(transaction, account)
    if after > before:
        limit = transaction.get(Account, "", account).spec.tunnel_limit
        tunnels = transaction.list(Tunnel, account)
        going = sum(tunnel.deleting for tunnel in tunnels)
        raise QuotaExceeded(
            f"account {account!r} may have {limit} tunnels, one for each instance of a gateway "
            f"and workload node with endpoints behind it; {after} nodes would get none. "
            f"It would have {len(tunnels) - going}, and {going} were deleted and are not gone yet; "
            f"{_HELP} tunnelLimit"
        )


def takes_more(before: Resource, after: Resource) -> bool:
    """Whether a slice that is replaced names other nodes or has more endpoints than before."""
    if not isinstance(before, GWEndpointSlice) or not isinstance(after, GWEndpointSlice):
        return False
    return bool(_nodes(after) - _nodes(before)) or _endpoints(after) > _endpoints(before)


def _nodes(piece: GWEndpointSlice) -> set[tuple[str, str]]:
    return {(piece.spec.client_ref.cluster_id, name) for name in piece.spec.node_addresses}


def _endpoints(piece: GWEndpointSlice) -> int:
    return sum(len(endpoint.addresses) for endpoint in piece.spec.endpoints)


def _named(reader: Reader, account: str) -> tuple[int, int]:
    """How many workload nodes and endpoints the account's slices name."""
    slices = reader.list(GWEndpointSlice, account)
    return len(set[tuple[str, str]]().union(*map(_nodes, slices))), sum(map(_endpoints, slices))


def _unconnected(reader: Reader, account: str) -> int:
    return sum(proxy.status.unconnected for proxy in reader.list(GWProxy, account))
