# SPDX-License-Identifier: Apache-2.0
"""Follows the store for the accounts whose workload nodes' lists are asked for: one watch for all of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from ipaddress import IPv6Network

from epic.api.tunnel.node_lists import AccountLists
from epic.live import Live
from epic.model.resources import Node
from epic.reconcile.counts.workload_index import KINDS
from epic.store.interface import Change, Store
from epic.supervise import TellOnce
from epic.workqueue.turns import AccountTurns

log = logging.getLogger(__name__)

_WHAT = "following the tunnels of workload nodes"
_PAUSE_SECONDS = 1.0
_KEPT_SECONDS = 30.0
"""So long an account's index is kept for who comes again."""
_THREADS = 2
"""All but one of them for one account, at most."""
_AT_ONCE = 50
_NAMES = {kind.kind for kind in KINDS}


class WorkloadLists:
    """The lists of all accounts. It belongs to the event loop in which it is used first."""

    def __init__(self, store: Store, live: Live, inside: IPv6Network) -> None:
        """The inside addresses of IPv6 are of the network `inside`."""
        self._store = store
        self._live = live
        self._inside = inside
        self._turns = AccountTurns(_THREADS)
        self._accounts: dict[str, AccountLists] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._tell = TellOnce(log)

    @contextmanager
    def of(self, account: str) -> Iterator[AccountLists]:
        """Those of the account, kept up to date for as long as the block takes."""
        if self._watcher is None:
            # What is read from now on is read after this revision.
            self._watcher = asyncio.create_task(self._watch(self._store.revision), name="workload lists")
        found = self._accounts.get(account)
        if found is None:
            found = AccountLists(account, self._store, self._live, self._inside, self._turns)
            self._accounts[account] = found
        found.users += 1
        try:
            yield found
        finally:
            found.users -= 1
            if not found.users:
                asyncio.get_running_loop().call_later(_KEPT_SECONDS, self._let_go, found)

    def _let_go(self, lists: AccountLists) -> None:
        # Others may have come, gone and come again since: what is there then is theirs.
        if not lists.users and self._accounts.get(lists.account) is lists:
            del self._accounts[lists.account]
        if not self._accounts and self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def _watch(self, since: int) -> None:
        while True:
            try:
                async with aclosing(self._store.watch_batches(since)) as batches:
                    async for revision, changes in batches:
                        self._tell.success(_WHAT)
                        await self._take(revision, changes)
            except Exception as error:
                self._tell.fault(_WHAT, error)
                await asyncio.sleep(_PAUSE_SECONDS)
            since = self._store.revision
            for lists in self._accounts.values():
                lists.read_anew()

    async def _take(self, revision: int, changes: Sequence[Change]) -> None:
        nodes = [change for change in changes if change.kind == Node.kind]
        of_accounts: dict[str, list[Change]] = {}
        for change in changes:
            if change.account in self._accounts and change.kind in _NAMES:
                of_accounts.setdefault(change.account, []).append(change)
        for count, lists in enumerate(list(self._accounts.values()), 1):
            lists.take(revision, [*nodes, *of_accounts.get(lists.account, ())])
            if not count % _AT_ONCE:
                await asyncio.sleep(0)
