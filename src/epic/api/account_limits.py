# SPDX-License-Identifier: Apache-2.0
"""What an account may have besides gateways: workload nodes, endpoints and tunnels.

Nodes of EPIC have room for so many tunnels, and what one account takes others have not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from epic.errors import QuotaExceeded
from epic.model.base import Resource
from epic.model.resources import Account, GWEndpointSlice, GWProxy, Tunnel
from epic.store.interface import Reader, Transaction

_HELP = "delete what is not needed, or ask the platform's administrators for a higher"


@dataclass(frozen=True)
class _Usage:
    """What an account has; `unconnected` counts workload nodes of its gateways that got no tunnels."""

    nodes: int
    endpoints: int
    unconnected: int


@contextmanager
def within_limits(transaction: Transaction, account: str) -> Iterator[None]:
    """Raise QuotaExceeded at the end if the block made the account exceed a limit, or exceed it by more.

    What exceeds a limit that was lowered may become less.
    """
    before = _usage(transaction, account)
    yield
    after = _usage(transaction, account)
    limits = transaction.get(Account, "", account).spec
    if after.nodes > max(limits.workload_node_limit, before.nodes):
        raise QuotaExceeded(
            f"account {account!r} would have {after.nodes} workload nodes and may have "
            f"{limits.workload_node_limit}; it has {before.nodes}. Name only nodes that host endpoints, "
            f"{_HELP} workloadNodeLimit"
        )
    if after.endpoints > max(limits.endpoint_limit, before.endpoints):
        raise QuotaExceeded(
            f"account {account!r} would have {after.endpoints} endpoints and may have "
            f"{limits.endpoint_limit}; it has {before.endpoints}; {_HELP} endpointLimit"
        )
    if after.unconnected > before.unconnected:
        tunnels = transaction.list(Tunnel, account)
        going = sum(tunnel.deleting for tunnel in tunnels)
        raise QuotaExceeded(
            f"account {account!r} may have {limits.tunnel_limit} tunnels, one for each instance of a gateway "
            f"and workload node with endpoints behind it; {after.unconnected} nodes would get none. "
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


def _usage(reader: Reader, account: str) -> _Usage:
    slices = reader.list(GWEndpointSlice, account)
    return _Usage(
        nodes=len(set[tuple[str, str]]().union(*map(_nodes, slices))),
        endpoints=sum(map(_endpoints, slices)),
        unconnected=sum(proxy.status.unconnected for proxy in reader.list(GWProxy, account)),
    )
