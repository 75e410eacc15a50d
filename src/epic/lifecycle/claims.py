# SPDX-License-Identifier: Apache-2.0
"""Addresses and names that are not free, pure: what exists, goes, or may still be used by a lost node."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from epic.model.naming import GatewayId
from epic.model.nodes import Quarantine
from epic.model.resources import GWProxy, Tunnel


@dataclass(frozen=True)
class Claims:
    """All that is taken; of each DNS name, by which accounts."""

    public: frozenset[IPv4Address]
    inside: frozenset[IPv4Address]
    dns_names: Mapping[str, frozenset[str]]


def claims(
    proxies: Iterable[GWProxy], tunnels: Iterable[Tunnel], quarantines: Iterable[Quarantine]
) -> Claims:
    """What is taken by these."""
    public: set[IPv4Address] = set()
    inside = {tunnel.spec.inside_address for tunnel in tunnels}
    names: dict[str, set[str]] = defaultdict(set)
    for held in quarantines:
        inside.add(held.spec.inside_address)
        for name in held.spec.dns_names:
            names[name].add(GatewayId.parse(held.spec.gateway).account)
        if held.spec.public_address is not None:
            public.add(held.spec.public_address)
    for proxy in proxies:
        inside.update(instance.inside_address for instance in proxy.status.instances)
        for endpoint in proxy.spec.endpoints:
            names[endpoint.dns_name].add(proxy.account)
        if proxy.spec.public_address is not None:
            public.add(proxy.spec.public_address)
    accounts = {name: frozenset(holders) for name, holders in names.items()}
    return Claims(frozenset(public), frozenset(inside), accounts)
