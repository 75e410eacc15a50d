# SPDX-License-Identifier: Apache-2.0
"""Immutable views of objects by kind: by account and name, by indexes; each change makes a new one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from epic.cache.sorted_map import SortedMap

T = TypeVar("T")

IndexValue = str | tuple[str, ...]
"""What objects are found by; all values of an index are of one shape."""
Indexer = Callable[[T], Iterable[IndexValue]]


@dataclass(frozen=True)
class CachedKind(Generic[T]):
    """A kind, and by what its objects are found."""

    kind: str
    indexes: Mapping[str, Indexer[T]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """An object at the revision that wrote it."""

    account: str
    name: str
    revision: int
    object: T


@dataclass(frozen=True, slots=True)
class Fault:
    """An object that is there and cannot be read: it is not gone."""

    account: str
    name: str
    revision: int
    reason: str
    # Its bytes, for who looks for what it may hold.
    value: bytes = field(default=b"", repr=False, compare=False)
    newer: bool = False


@dataclass(frozen=True, slots=True)
class Delta:
    """An object that was changed: what it was and what it is; None: it was not, or is not there.

    Of an object that cannot be read (any more) there is none, either.
    """

    kind: str
    account: str
    name: str
    old: Any | None
    new: Any | None


class KindView(Generic[T]):
    """The objects of one kind."""

    __slots__ = ("_entries", "_faults", "_indexes", "_kind")

    def __init__(
        self,
        kind: CachedKind[T],
        entries: SortedMap[Entry[T]],
        indexes: Mapping[str, SortedMap[Entry[T]]],
        faults: SortedMap[Fault],
    ) -> None:
        self._kind = kind
        self._entries = entries
        self._indexes = indexes
        self._faults = faults

    @classmethod
    def empty(cls, kind: CachedKind[T]) -> KindView[T]:
        """Without any object."""
        return cls(kind, SortedMap(), {name: SortedMap() for name in kind.indexes}, SortedMap())

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, account: str, name: str) -> T | None:
        """The object, or None."""
        entry = self._entries.get((account, name))
        return None if entry is None else entry.object

    def entry(self, account: str, name: str) -> Entry[T] | None:
        """The object and its revision, or None."""
        return self._entries.get((account, name))

    def fault(self, account: str, name: str) -> Fault | None:
        """Why the object cannot be read; None if it can, or is not there."""
        return self._faults.get((account, name))

    def faults(self) -> Iterator[Fault]:
        """The objects that cannot be read: who removes what no object asks for must look here first."""
        return self._faults.values()

    def entries(self, account: str | None = None) -> Iterator[Entry[T]]:
        """The objects of an account or (None) of all, by account and name."""
        return self._entries.values() if account is None else self._entries.scan((account,), 1)

    def list(self, account: str | None = None) -> Iterator[T]:
        """The objects of an account or (None) of all, by account and name."""
        return (entry.object for entry in self.entries(account))

    def by(self, index: str, value: IndexValue) -> Iterator[T]:
        """The objects that the index has for the value, by account and name."""
        return (entry.object for entry in self._indexes[index].scan((value,), 1))

    def keys(self) -> Iterator[tuple[str, str]]:
        """Account and name of each object, and of each that cannot be read."""
        for key in (*self._entries, *self._faults):
            yield key[0], key[1]

    def revision(self, account: str, name: str) -> int:
        """Of the object, whether it can be read or not; 0: it is not there."""
        found = self._entries.get((account, name)) or self._faults.get((account, name))
        return 0 if found is None else found.revision

    def changed(self, account: str, name: str, new: Entry[T] | Fault | None) -> KindView[T]:
        """The view with this in the object's place; None: without it."""
        key = (account, name)
        old = self._entries.get(key)
        entry = new if isinstance(new, Entry) else None
        entries = self._entries
        if entry is not None:
            entries = entries.with_value(key, entry)
        elif old is not None:
            entries = entries.without(key)
        faults = self._faults
        if isinstance(new, Fault):
            faults = faults.with_value(key, new)
        elif len(faults):
            faults = faults.without(key)
        indexes = {
            index: _reindexed(self._indexes[index], indexer, key, old, entry)
            for index, indexer in self._kind.indexes.items()
        }
        return KindView(self._kind, entries, indexes, faults)


class Snapshot:
    """All objects of some kinds as they were at one revision of the store."""

    __slots__ = ("_views", "revision")

    def __init__(self, revision: int, views: Mapping[str, KindView[Any]]) -> None:
        self.revision = revision
        self._views = views

    @classmethod
    def empty(cls, kinds: Iterable[CachedKind[Any]]) -> Snapshot:
        """Without any object."""
        return cls(0, {kind.kind: KindView.empty(kind) for kind in kinds})

    def of(self, kind: CachedKind[T]) -> KindView[T]:
        """The objects of a kind."""
        return cast("KindView[T]", self._views[kind.kind])

    def view(self, kind: str) -> KindView[Any]:
        """The objects of a kind that is known by name only."""
        return self._views[kind]

    def __contains__(self, kind: str) -> bool:
        return kind in self._views

    def with_view(self, kind: str, view: KindView[Any]) -> Snapshot:
        """With other objects of a kind."""
        return Snapshot(self.revision, {**self._views, kind: view})

    def at(self, revision: int) -> Snapshot:
        """The same at a later revision."""
        return Snapshot(revision, self._views)


def _reindexed(
    index: SortedMap[Entry[T]],
    indexer: Indexer[T],
    key: tuple[str, str],
    old: Entry[T] | None,
    new: Entry[T] | None,
) -> SortedMap[Entry[T]]:
    after = set() if new is None else set(indexer(new.object))
    if old is not None:
        for value in set(indexer(old.object)) - after:
            index = index.without((value, *key))
    if new is not None:
        for value in after:
            index = index.with_value((value, *key), new)
    return index
