# SPDX-License-Identifier: Apache-2.0
"""Addresses that a client gives to its nodes: none is the platform's own, for tunnels are sent there."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from epic.api.context import Context
from epic.errors import Invalid
from epic.ipam.prefixes import pools_of
from epic.log_rate import LogRate
from epic.model.addresses import Address
from epic.model.resources import GWEndpointSlice, Node, ServicePrefix
from epic.store.interface import Reader

_warnings = LogRate(logging.getLogger(__name__))


def check_node_addresses(ctx: Context, reader: Reader, slice_: GWEndpointSlice) -> None:
    """Raise Invalid for a slice that calls an address of the platform one of the client's nodes.

    The client is told which of its addresses it is. What the platform has there is said in the log, which
    counts refusals that come too often to be written.
    """
    addresses = slice_.spec.node_addresses
    if not addresses:
        return
    epic_nodes = {node.spec.address: node.name for node in reader.list(Node)}
    prefixes = reader.list(ServicePrefix)
    for name, address in addresses.items():
        for owner in _owners(ctx, epic_nodes, prefixes, address):
            _warnings.warning(
                "refused: slice %s of account %s has %s for its node %s, which is of %s",
                *(slice_.name, slice_.account, address, name, owner),
            )
            raise Invalid(
                f"slice.spec.nodeAddresses.{name}: {address} is an address of the platform and cannot be one "
                "of your nodes; give the address at which the node is reached from the EPIC nodes"
            )


def _owners(
    ctx: Context, epic_nodes: dict[Address, str], prefixes: list[ServicePrefix], address: Address
) -> Iterator[str]:
    if address in epic_nodes:
        yield f"EPIC node {epic_nodes[address]}"
    for network in (ctx.inside_pool, ctx.pools.inside6, ctx.pools.mapped, ctx.pools.mapped6):
        if address in network:
            yield f"the platform's pool {network}"
    for prefix in prefixes:
        for pool in pools_of(prefix.name, prefix.spec):
            if address in pool.range:
                yield pool.name
