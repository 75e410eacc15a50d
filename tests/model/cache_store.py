# SPDX-License-Identifier: Apache-2.0
"""A store in memory whose watches break, fall behind and find history compacted when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from epic.cache.feed import Cache, FedKind
from epic.cache.views import CachedKind
from epic.errors import Compacted, Unavailable
from epic.store.objects import Batch, Event, Key, Page, Stored, Unreadable

ROUTES: CachedKind[str] = CachedKind("GWRoute", {"first": lambda text: text[:1]})
NODES: CachedKind[str] = CachedKind("Node")


def decode(stored: Stored) -> str:
    text = stored.body.decode()
    if text.startswith("!"):
        raise ValueError(f"not understood: {text}")
    return text


FED = [FedKind(ROUTES, decode), FedKind(NODES, decode)]


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


def cache_of(store: FakeStore) -> Cache:
    return Cache(store, FED, no_sleep)


class FakeStore:
    """Commits in order; `b"?"` in front of a body makes the object unreadable to the store itself."""

    def __init__(self) -> None:
        self.revision = 0
        self.history: list[tuple[int, dict[Key, bytes | None]]] = []
        self.compacted = 0
        self.lists = 0
        self.on_page: Callable[[], None] = lambda: None
        self._changed = asyncio.Event()
        self._broken = 0

    def commit(self, changes: dict[Key, bytes | None]) -> int:
        self.revision += 1
        self.history.append((self.revision, changes))
        self._wake()
        return self.revision

    def compact(self) -> None:
        """Forget all history; those who are behind must read everything again."""
        self.compacted = self.revision
        self.break_watches()

    def break_watches(self) -> None:
        self._broken += 1
        self._wake()

    def state(self, revision: int | None = None) -> dict[Key, Stored | Unreadable]:
        until = self.revision if revision is None else revision
        found: dict[Key, Stored | Unreadable] = {}
        for number, changes in self.history:
            if number <= until:
                for key, body in changes.items():
                    found.pop(key, None)
                    if body is not None:
                        found[key] = stored(key, number, body)
        return found

    async def list(self, kind: str, *, limit: int, continue_token: str) -> Page:
        self.lists += not continue_token
        await asyncio.sleep(0)
        revision, offset = map(int, continue_token.split()) if continue_token else (self.revision, 0)
        if revision < self.compacted:
            raise Compacted("too old")
        found = [item for key, item in sorted(self.state(revision).items()) if key.kind == kind]
        part = found[offset : offset + min(limit, 2)]
        token = f"{revision} {offset + 2}" if offset + 2 < len(found) else ""
        page = Page(
            tuple(i for i in part if isinstance(i, Stored)),
            tuple(i for i in part if isinstance(i, Unreadable)),
            revision,
            token,
        )
        self.on_page()
        return page

    async def watch(
        self, kind: str | None, account: str | None, revision: int
    ) -> AsyncGenerator[Batch, None]:
        broken = self._broken
        while True:
            if revision < self.compacted:
                raise Compacted("too old")
            if broken != self._broken:
                raise Unavailable("the connection broke")
            new = [(number, changes) for number, changes in self.history if number > revision]
            revision = self.revision
            yield Batch(revision, tuple(event(n, k, b) for n, changes in new for k, b in changes.items()))
            if revision == self.revision and broken == self._broken:
                self._changed.clear()
                await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()


def stored(key: Key, revision: int, body: bytes) -> Stored | Unreadable:
    if body.startswith(b"?"):
        return Unreadable(key, revision, "its checksum does not fit")
    return Stored(key, revision, body)


def event(revision: int, key: Key, body: bytes | None) -> Event:
    return Event(key, revision, None if body is None else stored(key, revision, body))


def assert_equals_full_list(cache: Cache, store: FakeStore) -> None:
    """The snapshot is what a list of everything says, and what indexes find is what they should."""
    assert cache.snapshot.revision == store.revision
    for kind in (ROUTES, NODES):
        view = cache.snapshot.of(kind)
        expected = {k: s for k, s in sorted(store.state().items()) if k.kind == kind.kind}
        readable = {
            (k.account, k.name): s.body.decode()
            for k, s in expected.items()
            if isinstance(s, Stored) and not s.body.startswith(b"!")
        }
        assert list(view.list()) == list(readable.values())
        assert set(view.keys()) == {(k.account, k.name) for k in expected}
        assert {(f.account, f.name) for f in view.faults()} == set(view.keys()) - set(readable)
        assert all(view.revision(k.account, k.name) == s.revision for k, s in expected.items())
    for letter in "xyz":
        found = list(cache.snapshot.of(ROUTES).by("first", letter))
        assert found == [t for t in cache.snapshot.of(ROUTES).list() if t[0] == letter]
