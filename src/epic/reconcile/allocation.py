# SPDX-License-Identifier: Apache-2.0
"""Giving addresses to instances."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from epic.ipam.book import Pool
from epic.ipam.ranges import inside_range
from epic.lifecycle.claims import Claims
from epic.model.base import now
from epic.model.instances import ProxyInstance


def new_instances(nodes: Iterable[str], taken: Claims, pool: IPv4Network) -> tuple[ProxyInstance, ...]:
    """An instance on each of the nodes, its tunnels still to be planned; raises Exhausted."""
    nodes = list(nodes)
    inside = Pool("the pool of inside addresses", inside_range(pool))
    addresses = taken.inside.propose([inside], len(nodes))
    return tuple(
        ProxyInstance(
            node=node,
            inside_address=address,
            since=now(),
            reason="waits for a run",
            unconnected="pending",
        )
        for node, address in zip(nodes, addresses, strict=True)
        if isinstance(address, IPv4Address)
    )
