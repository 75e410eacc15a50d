# SPDX-License-Identifier: Apache-2.0
"""Addresses that a client gives to its nodes: none is the platform's own.

Nothing is sent there before a hello has come from the node, wherever it is. But a wrong one is a mistake that
its client wants to know of. Networks of the platform that nobody outside sees do not count: a client's nodes
may have the same addresses behind their translator.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network

from epic.api.context import Context
from epic.errors import Invalid
from epic.ipam.prefixes import pools_of
from epic.ipam.ranges import AddressRange
from epic.log_rate import LogRate
from epic.model.resources import GWEndpointSlice, Node, ServicePrefix
from epic.model.values.addresses import Address
from epic.store.interface import Reader

_Range = AddressRange | IPv4Network | IPv6Network
_warnings = LogRate(logging.getLogger(__name__))


def check_node_addresses(ctx: Context, reader: Reader, slice_: GWEndpointSlice, where: str = "") -> None:
    """Raise Invalid for a slice that calls an address of the platform one of the client's nodes.

    `where` is the field in the request, if that is not the slice's own.

    The client is told which of its addresses it is. What the platform has there is said in the log, which
    counts refusals that come too often to be written.
    """
    stored = reader.find(GWEndpointSlice, slice_.account, slice_.name)
    known = stored.spec.node_addresses if stored is not None else {}
    # What was right once stays so: a node or pool that came later must not hold up the slice's endpoints.
    addresses = {n: a for n, a in slice_.spec.node_addresses.items() if known.get(n) != a}
    if not addresses:
        return
    epic_nodes = {node.spec.address: node.name for node in reader.list(Node)}
    ranges: list[tuple[str, _Range]] = [
        (f"the platform's pool {network}", network) for network in (ctx.pools.mapped, ctx.pools.mapped6)
    ]
    for prefix in reader.list(ServicePrefix):
        ranges += [(pool.name, pool.range) for pool in pools_of(prefix.name, prefix.spec)]
    for name, address in addresses.items():
        owner = _owner(epic_nodes, ranges, address)
        if owner is not None:
            _warnings.warning(
                "refused: slice %s of account %s has %s for its node %s, which is of %s",
                *(slice_.name, slice_.account, address, name, owner),
            )
            raise Invalid(
                f"{where or f'slice.spec.nodeAddresses.{name}'}: {address} is an address of the platform and "
                "cannot be one of your nodes; give the address at which the node is reached from the EPIC "
                "nodes"
            )


def _owner(
    epic_nodes: Mapping[Address, str], ranges: Sequence[tuple[str, _Range]], address: Address
) -> str | None:
    if address in epic_nodes:
        return f"EPIC node {epic_nodes[address]}"
    return next((owner for owner, range_ in ranges if address in range_), None)
