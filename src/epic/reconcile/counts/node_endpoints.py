# SPDX-License-Identifier: Apache-2.0
"""How many endpoints the kernels of EPIC nodes have: one for each instance that has a tunnel to its node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from epic.model.resources import Tunnel
from epic.model.values.naming import GatewayId
from epic.reconcile.counts.counting import count, count_in
from epic.tunnels import WorkloadNode, key_of


class NodeEndpoints:
    """What a change touches is counted anew: the instances of gateways that send requests to the Service.

    An address counts for each slice that has it, so that there are never more than are counted.
    """

    def __init__(self) -> None:
        self._behind: dict[GatewayId, Counter[WorkloadNode]] = {}
        """How many endpoints of a gateway's Services are on a workload node."""
        self._tunnels: dict[tuple[GatewayId, WorkloadNode], Counter[str]] = {}
        """How many tunnels a gateway has from EPIC nodes to a workload node."""
        self._shares: dict[str, Counter[str]] = {}
        """By account, how many endpoints are on EPIC nodes for it."""
        self._on_node: Counter[str] = Counter()
        self.changed: set[GatewayId] = set()
        """Gateways with other tunnels, or other workload nodes behind them, than when they were counted."""

    def change(self, gateway: GatewayId, workload: WorkloadNode, number: int) -> None:
        """So many endpoints more, or less, are behind the gateway on the workload node."""
        if count_in(self._behind, gateway, workload, number):
            self.changed.add(gateway)
        for node in self._tunnels.get((gateway, workload), ()):
            self._add(gateway.account, node, number)

    def apply_tunnel(self, old: Tunnel | None, new: Tunnel | None) -> None:
        """Take in a tunnel as it was and as it is."""
        for tunnel, sign in ((new, 1), (old, -1)):
            if tunnel is None or tunnel.deleting:
                continue
            gateway, workload = GatewayId(tunnel.account, tunnel.spec.proxy), key_of(tunnel).workload
            node = tunnel.spec.epic_node
            self.changed.add(gateway)
            if count_in(self._tunnels, (gateway, workload), node, sign):
                self._add(gateway.account, node, sign * self.behind(gateway, workload))

    def _add(self, account: str, node: str, number: int) -> None:
        count_in(self._shares, account, node, number)
        count(self._on_node, node, number)

    def has_tunnel(self, gateway: GatewayId, workload: WorkloadNode, node: str) -> bool:
        """Whether the gateway has a tunnel from the EPIC node to the workload node."""
        return node in self._tunnels.get((gateway, workload), ())

    def behind(self, gateway: GatewayId, workload: WorkloadNode) -> int:
        """How many endpoints are behind the gateway on the workload node."""
        nodes = self._behind.get(gateway)
        return nodes[workload] if nodes is not None else 0

    def count_workloads(self, gateway: GatewayId) -> int:
        """On how many workload nodes endpoints are behind the gateway."""
        return len(self._behind.get(gateway, ()))

    def on_node(self, node: str) -> int:
        """How many an EPIC node has, of all accounts."""
        return self._on_node[node]

    def shares(self, account: str) -> Mapping[str, int]:
        """How many each EPIC node has for the account, as far as it has some."""
        return self._shares.get(account, {})
