# SPDX-License-Identifier: Apache-2.0
"""The lists of tunnels that an account's workload nodes ask for: each is written once, for all who ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv6Network
from weakref import WeakValueDictionary

from epic.api.tunnel.list_reply import Reply, written
from epic.api.tunnel.streams import Part, Stream, Streams
from epic.errors import Unavailable
from epic.live import Live, Place
from epic.model.resources import GWProxy, Node, Tunnel
from epic.reconcile.counts.workload_index import KINDS, Told, WorkloadIndex
from epic.store.interface import Change, Store
from epic.tunnels import WorkloadNode
from epic.workqueue.turns import AccountTurns

_EVENT = b"event: tunnels\ndata: "


class NodeList:
    """That of one workload node."""

    def __init__(self, write: Callable[[], Awaitable[Reply]]) -> None:
        self._write = write
        self._turn = asyncio.Lock()
        self._reply: Reply | None = None
        self._touched = 1
        self._written = 0
        self.number = 0
        """Another one with each list that differs from the one before."""
        self.signal = asyncio.Event()
        """Set, for ever, when there may be another list; the next one is in its place then."""

    def touch(self) -> None:
        """Something has changed that it is made of."""
        self._touched += 1
        self.ring()

    def ring(self) -> None:
        """Let those look again that wait."""
        self.signal.set()
        self.signal = asyncio.Event()

    async def newest(self) -> tuple[int, Reply]:
        """The list as it is now, and its number."""
        async with self._turn:
            if self._reply is None or self._written < self._touched:
                touched, reply = self._touched, await self._write()
                if self._reply is not None and reply.rest == self._reply.rest:
                    self._reply = replace(self._reply, revision=reply.revision)
                else:
                    self._reply = reply
                    self.number += 1
                self._written = touched
            return self.number, self._reply


class AccountLists:
    """The lists of an account, and who takes them. It belongs to one event loop."""

    def __init__(
        self, account: str, store: Store, live: Live, inside: IPv6Network, turns: AccountTurns
    ) -> None:
        self.account = account
        self.users = 0
        self.streams = Streams(account)
        self._store = store
        self._live = live
        self._inside = inside
        self._turns = turns
        self._lists: WeakValueDictionary[WorkloadNode, NodeList] = WeakValueDictionary()
        self._index: WorkloadIndex | None = None
        self.revision = 0
        """Of the store: up to it all changes are taken in."""
        self._missed: list[tuple[int, Sequence[Change]]] | None = None
        """What comes while everything is read; None: that is not done now."""
        self._read_turn = asyncio.Lock()

    def take(self, revision: int, changes: Sequence[Change]) -> None:
        """Take in all changes up to this revision of the store that are the account's, or nobody's."""
        if self._missed is not None:
            self._missed.append((revision, changes))
        if self._index is None or revision <= self.revision:
            return
        touched = {workload for change in changes for workload in self._index.apply(change)}
        self.revision = revision
        for workload in touched:
            found = self._lists.get(workload)
            if found is not None:
                found.touch()

    def read_anew(self) -> None:
        """Changes were missed."""
        self._index = self._missed = None
        for found in list(self._lists.values()):
            found.touch()

    async def read(self, workload: WorkloadNode) -> Iterator[bytes]:
        """A node's list, as JSON in pieces."""
        found = self._list(workload)
        number, reply = await found.newest()
        self.streams.drop_superseded()
        return self.streams.taken(Stream(), Part(reply.pieces(), len(reply.rest), found, number))

    async def follow(self, workload: WorkloadNode, most: int) -> AsyncGenerator[Iterator[bytes], None]:
        """A node's list as events in pieces, at once and each time that it is another one.

        Who has not taken one yet gets the newest after it, and none of those in between. `most` are the
        streams that the account may have: it ends when there is no room for it.
        """
        found, taken = self._list(workload), 0
        with self.streams.opened(workload, most) as stream:
            stream.wake = found.ring
            while not stream.ended:
                signal = found.signal
                try:
                    number, reply = await found.newest()
                except Unavailable:  # what it has stays until it is known what it is to have
                    await signal.wait()
                    continue
                if number == taken:
                    del reply  # nobody is to hold an old list while waiting for a new one
                    await signal.wait()
                    continue
                part = Part(reply.pieces(_EVENT, b"\n\n"), len(reply.rest), found, number)
                taken = number
                del reply
                self.streams.drop_superseded()
                yield self.streams.taken(stream, part)
                del part

    def _list(self, workload: WorkloadNode) -> NodeList:
        found = self._lists.get(workload)
        if found is None:
            found = self._lists[workload] = NodeList(lambda: self._write(workload))
        return found

    async def _write(self, workload: WorkloadNode) -> Reply:
        async with self._turns.turn(self.account):
            index = await self._readable()
            revision, told = self.revision, self._noted(workload, index.told(workload))
            return await asyncio.to_thread(written, told, revision, self._inside)

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
        async with self._read_turn:
            while self._index is None:
                self._missed = missed = list[tuple[int, Sequence[Change]]]()
                revision, index = await asyncio.to_thread(_read, self._store, self.account)
                if missed is not self._missed:
                    continue
                self._index, self.revision, self._missed = index, revision, None
                for batch in missed:
                    self.take(*batch)
            return self._index


def _read(store: Store, account: str) -> tuple[int, WorkloadIndex]:
    # The revision first: what is read afterwards holds at least all changes until then.
    revision, index = store.revision, WorkloadIndex(account)
    for kind in KINDS:
        for obj in store.list(kind, None if kind is Node else account):
            index.note(obj)
    unreadable = [found for found in store.unreadable() if found.key.account in {"", account}]
    if unreadable:
        index.hold_unreadable(unreadable, store.list(GWProxy, account))
    return revision, index
