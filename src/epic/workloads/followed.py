# SPDX-License-Identifier: Apache-2.0
"""Follows the store for the accounts whose workload nodes have streams: one watch for all of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import NamedTuple

from epic.errors import Unavailable
from epic.live import Live, Place
from epic.model.base import Resource
from epic.model.resources import Account, GWProxy, Node, Tunnel, User
from epic.reconcile.counts.workload_index import KINDS, Told, WorkloadIndex
from epic.store.interface import Change, Store
from epic.supervise import TellOnce
from epic.tunnels import WorkloadNode
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
_CREDENTIALS = {Account.kind, User.kind}


class News(NamedTuple):
    """What a node is to be told, as of a revision of the store."""

    revision: int
    told: Told


class FollowedAccount:
    """What an account's workload nodes are to be told. It belongs to one event loop."""

    def __init__(
        self, account: str, store: Store, live: Live, turns: AccountTurns, taken: Callable[[], int]
    ) -> None:
        """`taken` says up to which revision of the store every account took in what is its own."""
        self.account = account
        self.users = 0
        self._store = store
        self._live = live
        self._turns = turns
        self._taken = taken
        self._waiting: dict[WorkloadNode, set[asyncio.Event]] = {}
        """What is set when a node may be to be told something else."""
        self._index: WorkloadIndex | None = None
        self._revision = 0
        """Of the store: up to it, or to what all took in, all changes are taken in."""
        self._missed: list[tuple[int, Sequence[Change]]] | None = None
        """What comes while everything is read; None: that is not done now."""
        self._read_turn = asyncio.Lock()

    def take(self, revision: int, changes: Sequence[Change]) -> None:
        """Take in all changes up to this revision of the store that are the account's, or nobody's."""
        if self._missed is not None:
            self._missed.append((revision, changes))
        if self._index is None or revision <= self._revision:
            return
        touched = {workload for change in changes for workload in self._index.apply(change)}
        self._revision = revision
        for workload in touched:
            self._wake(workload)

    def read_anew(self) -> None:
        """Changes were missed."""
        self._index = self._missed = None
        for workload in self._waiting:
            self._wake(workload)

    async def news(
        self, workload: WorkloadNode, ready: Callable[[], Awaitable[None]]
    ) -> AsyncGenerator[News, None]:
        """What a node is to be told, at once and each time that it may be something else.

        None before `ready` says so: then the newest one, and none of those in between.
        """
        touched = asyncio.Event()
        touched.set()
        self._waiting.setdefault(workload, set()).add(touched)
        try:
            while True:
                await touched.wait()
                await ready()
                touched.clear()
                try:
                    found = await self._newest(workload)
                except Unavailable:  # what it has stays until it is known what it is to have
                    continue
                yield found
        finally:
            self._waiting[workload].discard(touched)
            if not self._waiting[workload]:
                del self._waiting[workload]

    def _wake(self, workload: WorkloadNode) -> None:
        for touched in self._waiting.get(workload, ()):
            touched.set()

    async def _newest(self, workload: WorkloadNode) -> News:
        index = await self._readable()
        revision = max(self._revision, self._taken())
        return News(revision, self._noted(workload, index.told(workload)))

    def _noted(self, workload: WorkloadNode, told: Told) -> Told:
        """What the node may be told, of which it is noted that it may be told of tunnels."""
        place = Place(self.account, workload.cluster_id, workload.name)
        if not told.tunnels or self._live.is_listed(place):
            return told
        self._live.note_listing(place)
        # What is read from now on is waited for when it is deleted; what was read before may be gone by now.
        tunnels = [self._read_again(tunnel) for tunnel in told.tunnels]
        return replace(told, tunnels=tuple(tunnel for tunnel in tunnels if tunnel is not None))

    def _read_again(self, tunnel: Tunnel) -> Tunnel | None:
        found = self._store.find_readable(Tunnel, tunnel.account, tunnel.name)
        # What cannot be read is not gone.
        is_there = found is not None or self._store.exists(Tunnel, tunnel.account, tunnel.name)
        return found or (tunnel if is_there else None)

    async def _readable(self) -> WorkloadIndex:
        if self._index is not None:
            return self._index
        async with self._read_turn:
            while self._index is None:
                # A turn of all accounts' only for what takes long: to read.
                async with self._turns.turn(self.account):
                    await self._read()
            return self._index

    async def _read(self) -> None:
        self._missed = missed = list[tuple[int, Sequence[Change]]]()
        revision, index = await asyncio.to_thread(_read, self._store, self.account)
        if missed is not self._missed:
            return
        self._index, self._revision, self._missed = index, revision, None
        for batch in missed:
            self.take(*batch)


class FollowedAccounts:
    """All that have streams. It belongs to the event loop in which it is used first.

    `recheck` is called when credentials of an account may be worth nothing any more; of all, without one.
    """

    def __init__(self, store: Store, live: Live, recheck: Callable[[str], None]) -> None:
        self._store = store
        self._live = live
        self._recheck = recheck
        self._turns = AccountTurns(_THREADS)
        self._accounts: dict[str, FollowedAccount] = {}
        self._revision = 0
        self._watcher: asyncio.Task[None] | None = None
        self._tell = TellOnce(log)

    @contextmanager
    def of(self, account: str) -> Iterator[FollowedAccount]:
        """The account, followed for as long as the block takes."""
        if self._watcher is None:
            # What is read from now on is read after this revision.
            self._watcher = asyncio.create_task(self._watch(self._store.revision), name="workload nodes")
        found = self._accounts.get(account)
        if found is None:
            found = FollowedAccount(
                account, self._store, self._live, self._turns, taken=lambda: self._revision
            )
            self._accounts[account] = found
        found.users += 1
        try:
            yield found
        finally:
            found.users -= 1
            if not found.users:
                asyncio.get_running_loop().call_later(_KEPT_SECONDS, self._let_go, found)

    def _let_go(self, followed: FollowedAccount) -> None:
        # Others may have come, gone and come again since: what is there then is theirs.
        if not followed.users and self._accounts.get(followed.account) is followed:
            del self._accounts[followed.account]
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
            for followed in self._accounts.values():
                followed.read_anew()
            self._recheck("")

    async def _take(self, revision: int, changes: Sequence[Change]) -> None:
        for account in {_account_of(change) for change in changes if change.kind in _CREDENTIALS}:
            self._recheck(account)
        nodes = [change for change in changes if change.kind == Node.kind]
        of_accounts: dict[str, list[Change]] = {}
        for change in changes:
            if change.account in self._accounts and change.kind in _NAMES:
                of_accounts.setdefault(change.account, []).append(change)
        # What is nobody's concerns all; else no account costs anything whose nothing was changed.
        concerned = [self._accounts[name] for name in (self._accounts if nodes else of_accounts)]
        for count, followed in enumerate(concerned, 1):
            followed.take(revision, [*nodes, *of_accounts.get(followed.account, ())])
            if not count % _AT_ONCE:
                await asyncio.sleep(0)
        self._revision = revision


def _account_of(change: Change) -> str:
    """Whose credentials it changes; nothing for an administrator's, which open every account."""
    return change.name if change.kind == Account.kind else change.account


def _read(store: Store, account: str) -> tuple[int, WorkloadIndex]:
    # The revision first: what is read afterwards holds at least all changes until then.
    revision, index = store.revision, WorkloadIndex(account)
    kinds: Sequence[type[Resource]] = KINDS
    for kind in kinds:
        for obj in store.list(kind, None if kind is Node else account):
            index.note(obj)
    unreadable = [found for found in store.unreadable() if found.key.account in {"", account}]
    if unreadable:
        index.hold_unreadable(unreadable, store.list(GWProxy, account))
    return revision, index
