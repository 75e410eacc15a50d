# SPDX-License-Identifier: Apache-2.0
"""Tunnels by what they belong to, kept by the store's changes: nobody lists an account."""

from __future__ import annotations

from collections import Counter

from epic.kinds import indexes
from epic.kinds.index import Index
from epic.model.base import Resource
from epic.model.resources import Tunnel
from epic.model.values.naming import GatewayId
from epic.reconcile.counts.counting import count, count_in
from epic.tunnels import WorkloadNode, key_of


class Tunnels:
    """The tunnels of gateways and of nodes, those included that were deleted and are not gone."""

    def __init__(self) -> None:
        self._living = Index(Tunnel, lambda t: () if t.deleting else indexes.tunnel_gateway(t))
        self._going = Index(Tunnel, lambda t: (t.account,) if t.deleting else ())
        self._workloads: dict[str, dict[str, Counter[WorkloadNode]]] = {}
        self._of_account: Counter[str] = Counter()
        self._on_node: Counter[str] = Counter()
        self._share: Counter[tuple[str, str]] = Counter()

    def apply(self, account: str, name: str, obj: Resource | None) -> Tunnel | None:
        """Take in a tunnel; returns it as it was."""
        self._going.apply(account, name, obj)
        old, new = self._living.apply(account, name, obj)
        for tunnel, sign in ((old, -1), (new, 1)):
            if tunnel is not None:
                count(self._of_account, account, sign)
                count(self._on_node, tunnel.spec.epic_node, sign)
                count(self._share, (account, tunnel.spec.epic_node), sign)
                if not tunnel.deleting:
                    self._count(tunnel, sign)
        return old

    def _count(self, tunnel: Tunnel, sign: int) -> None:
        of_account = self._workloads.setdefault(tunnel.account, {})
        count_in(of_account, tunnel.spec.proxy, key_of(tunnel).workload, sign)
        if not of_account:
            del self._workloads[tunnel.account]

    def find(self, account: str, name: str) -> Tunnel | None:
        """The tunnel of that name, if there is one."""
        return self._living.find(account, name)

    def of(self, gateway: GatewayId) -> list[Tunnel]:
        """A gateway's tunnels that are not deleted."""
        return self._living.of(gateway)

    def going(self, account: str) -> list[Tunnel]:
        """The account's tunnels that were deleted and are not gone."""
        return self._going.of(account)

    def count_workloads(self, gateway: GatewayId) -> int:
        """To how many workload nodes a gateway has tunnels."""
        return len(self._workloads.get(gateway.account, {}).get(gateway.proxy, ()))

    def living(self, gateway: GatewayId) -> int:
        """How many tunnels a gateway has that are not deleted."""
        return self._workloads.get(gateway.account, {}).get(gateway.proxy, Counter()).total()

    def total(self, account: str) -> int:
        """How many tunnels the account has."""
        return self._of_account[account]

    def on_node(self, node: str) -> int:
        """How many tunnels an EPIC node has."""
        return self._on_node[node]

    def share(self, account: str, node: str) -> int:
        """How many of them are the account's."""
        return self._share[account, node]
