# SPDX-License-Identifier: Apache-2.0
"""Keeps a cache at the store's newest revision, and tells who wants to know what has changed."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from epic.cache.draft import Draft
from epic.cache.views import CachedKind, Delta, Entry, Fault, Snapshot
from epic.errors import Compacted, Invalid, Unavailable
from epic.store.objects import Batch, Event, Page, Stored, Unreadable
from epic.supervise import TellOnce
from epic.workqueue.backoff import Backoff

log = logging.getLogger(__name__)

_WATCH = "the cache's watch"
_PAGE = 50
# Between so many objects others in the event loop have their turn.
_AT_ONCE = 25
_BACKOFF = Backoff(first=0.1, longest=5.0)


Follower = Callable[[Snapshot, Sequence[Delta]], None]


class WatchedStore(Protocol):
    """What a cache needs of the store."""

    async def list(self, kind: str, *, limit: int, continue_token: str) -> Page:
        """A page of the objects of a kind; all pages show one revision. Raises Compacted, Unavailable."""

    def watch(self, kind: str | None, account: str | None, revision: int) -> AsyncGenerator[Batch, None]:
        """All that was committed after the revision, for ever; raises Compacted, Unavailable, Invalid."""


@dataclass(frozen=True)
class FedKind:
    """A kind to be cached, and how its objects are made of what is stored."""

    cached: CachedKind[Any]
    decode: Callable[[Stored], Any]

    def read(self, found: Stored | Unreadable) -> Entry[Any] | Fault:
        """The object; one that cannot be read is a fault of its own and of nobody else."""
        key = found.key
        if isinstance(found, Unreadable):
            return Fault(key.account, key.name, found.revision, found.reason, found.value, found.newer)
        try:
            return Entry(key.account, key.name, found.revision, self.decode(found))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            log.error("%s cannot be read, and everything is served without it: %s", key, reason)
            return Fault(key.account, key.name, found.revision, reason, found.body)


class Cache:
    """The newest snapshot. Any thread may read `snapshot`; all else belongs to the event loop of `run`."""

    def __init__(
        self,
        store: WatchedStore,
        kinds: Iterable[FedKind],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._kinds: Mapping[str, FedKind] = {kind.cached.kind: kind for kind in kinds}
        self._sleep = sleep
        self._handlers: list[Callable[[Delta], None]] = []
        self._followers: list[Follower] = []
        self._tell = TellOnce(log)
        self.snapshot = Snapshot.empty(kind.cached for kind in self._kinds.values())
        self._draft = Draft(self.snapshot)
        # From which revision on the draft is a state that the store had; None: everything is to be read.
        self._whole_at: int | None = None
        self._is_filled = False
        self._listed: dict[str, int] = {}
        # Of the draft, from its first whole state on, and of what is shown.
        self._lock = threading.Lock()
        self._undelivered: deque[Delta] = deque()
        self._waiting: list[tuple[int, asyncio.Future[Snapshot]]] = []

    def subscribe(self, handler: Callable[[Delta], None]) -> None:
        """Call the handler for each object that changes, after the snapshot has it; it must be quick.

        To be called before `run`: to begin with, all objects are changes. Changes that follow each other
        closely may come as one.
        """
        self._handlers.append(handler)

    def follow(self, follower: Follower) -> None:
        """Call the follower with each new snapshot and what differs from the one before, as it is shown.

        To be called before `run`; it must be quick and not fail. Nobody who waits for a revision has the
        snapshot earlier.
        """
        self._followers.append(follower)

    def adopt(self, base: Snapshot, snapshot: Snapshot, deltas: Sequence[Delta]) -> bool:
        """Show what this process has just committed, without waiting to be told of it by the store.

        Only if nobody has committed anything else since `base`: otherwise False, and it comes by the watch.
        To be called from any thread; who has subscribed or waits is told when the watch comes to it.
        """
        with self._lock:
            is_newest = self._whole_at is not None and self.snapshot is base and self._draft.snapshot is base
            if not is_newest or snapshot.revision != base.revision + 1:
                return False
            self._draft.adopt(snapshot, deltas)
            self._show()
        return True

    async def reach(self, revision: int) -> Snapshot:
        """The snapshot as soon as it is of this revision or a later one."""
        if self._is_filled and self.snapshot.revision >= revision:
            return self.snapshot
        future: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()
        self._waiting.append((revision, future))
        return await future

    async def run(self) -> None:
        """Follow the store until cancelled. While it cannot be reached the last snapshot stays."""
        failures = 0
        while True:
            try:
                await self._deliver()
                if self._whole_at is None:
                    await self._list()
                async with aclosing(self._watch()) as batches:
                    async for batch in batches:
                        failures = 0
                        self._tell.success(_WATCH)
                        await self._take(batch)
            except (Compacted, Invalid) as error:
                # Too far behind; or the store was set back to an older state.
                log.info("%s: %s; everything is read again", _WATCH, error)
                self._whole_at = None
            except Unavailable as error:
                self._tell.fault(_WATCH, error)
            failures += 1
            await self._sleep(_BACKOFF.delay(failures))

    def _watch(self) -> AsyncGenerator[Batch, None]:
        return self._store.watch(None, None, self._draft.snapshot.revision)

    async def _list(self) -> None:
        """Read everything; what is as it was before is no change."""
        for kind in self._kinds.values():
            self._listed[kind.cached.kind] = await self._list_kind(kind)
        with self._lock:
            self._draft.reach(min(self._listed.values()))
            self._whole_at = max(self._listed.values())
            self._show()
        await self._tell_all()

    async def _list_kind(self, kind: FedKind) -> int:
        """Read the objects of a kind; returns the revision at which they were so."""
        name = kind.cached.kind
        before = self._draft.snapshot.view(name)
        gone = set(before.keys())
        is_first = not gone
        token = ""
        while True:
            page = await self._store.list(name, limit=_PAGE, continue_token=token)
            listed: list[Stored | Unreadable] = [*page.items, *page.unreadable]
            for found in listed:
                key = (found.key.account, found.key.name)
                gone.discard(key)
                if before.revision(*key) != found.revision:
                    self._draft.put(name, *key, kind.read(found))
            await asyncio.sleep(0)
            if is_first:
                # They stay, mostly: a full collection over all of them would hold everybody up for a second.
                gc.freeze()
            token = page.continue_token
            if not token:
                break
        for key in gone:
            self._draft.put(name, *key, None)
        return page.revision

    async def _take(self, batch: Batch) -> None:
        for number, event in enumerate(batch.events, 1):
            kind = self._kinds.get(event.key.kind)
            if kind is not None and self._is_news(event):
                new = None if event.object is None else kind.read(event.object)
                with self._lock:
                    if self._is_news(event):
                        self._draft.put(event.key.kind, event.key.account, event.key.name, new)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        with self._lock:
            # What was adopted may be newer.
            if batch.revision > self._draft.snapshot.revision:
                self._draft.reach(batch.revision)
                self._show()
        await self._tell_all()

    def _is_news(self, event: Event) -> bool:
        return event.revision > max(self._listed[event.key.kind], self._draft.snapshot.revision)

    def _show(self) -> None:
        """Show the draft to everybody, if it is a state that the store had. The lock is held."""
        if self._whole_at is None or self._draft.snapshot.revision < self._whole_at:
            return
        deltas = self._draft.take_deltas()
        self.snapshot = self._draft.snapshot
        self._is_filled = True
        for follower in self._followers:
            follower(self.snapshot, deltas)
        if self._handlers:
            self._undelivered.extend(deltas)

    async def _tell_all(self) -> None:
        """Tell who waits for a revision or has subscribed of what is shown."""
        for wanted, future in self._waiting:
            if self._is_filled and wanted <= self.snapshot.revision and not future.done():
                future.set_result(self.snapshot)
        self._waiting = [(wanted, future) for wanted, future in self._waiting if not future.done()]
        await self._deliver()

    async def _deliver(self) -> None:
        number = 0
        while self._undelivered:
            self._call_handlers(self._undelivered.popleft())
            number += 1
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)

    def _call_handlers(self, delta: Delta) -> None:
        for handler in self._handlers:
            try:
                handler(delta)
            except Exception:  # who stumbles over an object must not keep it from others
                log.exception("a change of %s %s/%s was not taken", delta.kind, delta.account, delta.name)
