# SPDX-License-Identifier: Apache-2.0
"""Writing status to the store: read, change, write in one transaction, and only if something changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from epic.ads.reports import configured, heard, reported, silent
from epic.errors import EpicError
from epic.model.base import now
from epic.model.resources import GWProxy, Node
from epic.model.values.naming import GatewayId
from epic.proto import epic_pb2
from epic.store.interface import Store, Transaction
from epic.workqueue.threads import ThreadPool

log = logging.getLogger(__name__)

Change = Callable[[GWProxy], GWProxy]

# A node may have more gateways than a commit takes; others get their turn in between.
_AT_ONCE = 100
_THREADS = 4


class Statuses:
    """The status fields that the ADS service owns."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads = ThreadPool("statuses", _THREADS)

    async def configured(
        self, gateway: GatewayId, revision: str, problem: EpicError | None, left_out: int
    ) -> None:
        """Note a gateway's revision, whether a newer one was refused, and how many routes are left out."""
        await self._change([gateway], lambda proxy: configured(proxy, revision, problem, left_out))

    async def silent(self, gateways: Iterable[GatewayId], node: str) -> None:
        """Note that a node is not heard of."""
        await self._change(gateways, lambda proxy: silent(proxy, node))

    async def reported(self, gateways: Iterable[GatewayId], report: epic_pb2.NodeReport) -> None:
        """Note a node's report; `gateways` are those with an instance on it."""
        states = {state.gateway: state for state in report.instances}
        await self._change(gateways, lambda proxy: reported(proxy, report.node, states))
        await self._threads.run(self._heard, report)

    def _heard(self, report: epic_pb2.NodeReport) -> None:
        time = now()
        node = self._store.find_readable(Node, "", report.node)
        if node is None:
            log.debug("node %s reports but is not known, or cannot be read", report.node)
            return
        if heard(node, report, time) is node:
            return
        with self._store.transaction() as transaction:
            node = transaction.find_readable(Node, "", report.node)
            if node is not None:
                transaction.update(heard(node, report, time))

    async def _change(self, gateways: Iterable[GatewayId], change: Change) -> None:
        await self._threads.run(self._apply, tuple(gateways), change)

    def _apply(self, gateways: Iterable[GatewayId], change: Change) -> None:
        # A look without a transaction first: nearly always nothing has changed.
        due = [gateway for gateway in gateways if _changed(self._store, gateway, change) is not None]
        for start in range(0, len(due), _AT_ONCE):
            with self._store.transaction() as transaction:
                for gateway in due[start : start + _AT_ONCE]:
                    proxy = _changed(transaction, gateway, change)
                    if proxy is not None:
                        transaction.update(proxy)


def _changed(reader: Store | Transaction, gateway: GatewayId, change: Change) -> GWProxy | None:
    proxy = reader.find_readable(GWProxy, gateway.account, gateway.proxy)
    if proxy is None:
        return None
    changed = change(proxy)
    return None if changed == proxy else changed
