# SPDX-License-Identifier: Apache-2.0
"""Giving addresses and places to gateways inside a transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Network

from epic.ipam import first_free, inside_range
from epic.lifecycle.claims import Claims, claims
from epic.model.instances import ProxyInstance
from epic.model.nodes import Quarantine
from epic.model.resources import GWProxy, Node, Tunnel
from epic.placement import Candidate
from epic.store.interface import Reader


def read_claims(reader: Reader, proxies: Iterable[GWProxy]) -> Claims:
    """All addresses and names that are not free; `proxies` are all gateways."""
    return claims(proxies, reader.list(Tunnel), reader.list(Quarantine))


def candidates(nodes: Iterable[Node], proxies: Iterable[GWProxy]) -> list[Candidate]:
    """The nodes that may get instances."""
    load = Counter(instance.node for proxy in proxies for instance in proxy.status.instances)
    return [
        Candidate(node.name, node.spec.capacity, load[node.name], takes_new(node))
        for node in nodes
        if not node.deleting
    ]


def takes_new(node: Node) -> bool:
    """Whether the node is to take new instances."""
    return node.spec.schedulable and not node.spec.drain


def new_instances(nodes: Iterable[str], taken: Claims, pool: IPv4Network) -> tuple[ProxyInstance, ...]:
    """An instance on each of the nodes; raises Exhausted."""
    nodes = list(nodes)
    addresses = first_free(inside_range(pool), taken.inside, "the pool of inside addresses", len(nodes))
    return tuple(
        ProxyInstance(node=node, inside_address=address, reason="waits for a run")
        for node, address in zip(nodes, addresses, strict=True)
    )
