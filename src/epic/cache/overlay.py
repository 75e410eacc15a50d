# SPDX-License-Identifier: Apache-2.0
"""A transaction over a snapshot: it reads its own writes, which nobody else sees before it is committed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from epic.cache.compact import compact
from epic.cache.draft import Draft
from epic.cache.numbers import beyond_use
from epic.cache.views import CachedKind, Delta, Entry, IndexValue, KindView, Snapshot
from epic.errors import AlreadyExists, Conflict, Damaged, NotFound
from epic.kinds.registry import KINDS
from epic.model.base import Resource, now
from epic.store.interface import Change, R
from epic.store.objects import Delete, Key, Operation, Put, Unreadable

SEQUENCE = CachedKind[int]("Sequence")
EVERY_KIND = tuple(kind.name for kind in KINDS)
_ORDER = "transactions"
"""The sequence of which each transaction takes a number: of two that read the same one is refused."""

Past = Callable[[int, Snapshot, frozenset[str]], Sequence[Change]]
"""What was changed of these kinds after a revision, as it is in a snapshot."""


@dataclass(frozen=True)
class Written:
    """What a transaction comes to: its operations, and the snapshot after it."""

    operations: list[Operation]
    mark: Put
    """One of them, that shows whether they happened: no other transaction writes the same."""
    base: Snapshot
    snapshot: Snapshot
    deltas: list[Delta]


class _Content(NamedTuple):
    body: bytes
    labels: Mapping[str, str]


class SnapshotReader:
    """Reads what a snapshot shows."""

    @property
    def snapshot(self) -> Snapshot:
        """What is read."""
        raise NotImplementedError

    def find(self, kind: type[R], account: str, name: str) -> R | None:
        """The object, or None; raises Damaged when it is there and cannot be read."""
        view = self._view(kind)
        found = view.get(account, name)
        if found is None:
            fault = view.fault(account, name)
            if fault is not None:
                what = _title(kind, account, name)
                raise Damaged(f"{what} cannot be read; delete it, and make it anew", fault.reason)
        return found

    def get(self, kind: type[R], account: str, name: str) -> R:
        """The object; raises NotFound."""
        found = self.find(kind, account, name)
        if found is None:
            raise NotFound(f"{_title(kind, account, name)} does not exist")
        return found

    def exists(self, kind: type[Resource], account: str, name: str) -> bool:
        """Whether the object is there, be it that it can be read or not."""
        return self.snapshot.view(kind.kind).revision(account, name) > 0

    def find_readable(self, kind: type[R], account: str, name: str) -> R | None:
        """The object; None: it is not there, or cannot be read."""
        return self._view(kind).get(account, name)

    def list(self, kind: type[R], account: str | None = None) -> list[R]:
        """All objects of the kind that can be read, of one account or (None) of all, in their order."""
        return list(self._view(kind).list(account))

    def by(self, kind: type[R], index: str, value: IndexValue) -> Sequence[R]:
        """The objects that can be read and that an index of the kind has for the value, in their order."""
        return list(self._view(kind).by(index, value))

    def unreadable(
        self, kind: type[Resource] | None = None, account: str | None = None
    ) -> Sequence[Unreadable]:
        """The objects that are there and cannot be read: of one kind or of all, of one account or of all."""
        names = EVERY_KIND if kind is None else (kind.kind,)
        return [
            Unreadable(
                Key(name, fault.account, fault.name), fault.revision, fault.reason, fault.value, fault.newer
            )
            for name in names
            for fault in self.snapshot.view(name).faults()
            if account in {None, fault.account}
        ]

    def _view(self, kind: type[R]) -> KindView[R]:
        return cast("KindView[R]", self.snapshot.view(kind.kind))


class OverlayTransaction(SnapshotReader):
    """Writes that are kept here until they are committed, at the revision after the snapshot's."""

    def __init__(self, base: Snapshot, past: Past, writer: str) -> None:
        self.revision = base.revision
        self._base = base
        self._past = past
        self._writer = writer
        self._next = base.revision + 1
        self._draft = Draft(base)
        # What is to be in its place; None: nothing.
        self._touched: dict[Key, _Content | None] = {}
        self._given: list[Resource] = []

    @property
    def snapshot(self) -> Snapshot:
        """As it would be after the transaction."""
        return self._draft.snapshot

    def changes(self, since: int, kinds: Iterable[type[Resource]]) -> Sequence[Change]:
        """What was changed of these kinds after revision `since` until it began."""
        return self._past(since, self._base, frozenset(kind.kind for kind in kinds))

    def create(self, obj: R) -> R:
        """Add an object; raises AlreadyExists."""
        kind = type(obj)
        if self.exists(kind, obj.account, obj.name):
            raise AlreadyExists(f"{_title(kind, obj.account, obj.name)} exists already")
        stamp = {"creation_timestamp": obj.metadata.creation_timestamp or now(), "generation": 1}
        obj = obj.model_copy(update={"metadata": obj.metadata.model_copy(update=stamp)})
        return self._put(obj, KINDS.of(obj).encode(obj))

    def update(self, obj: R) -> R:
        """Replace the object; raises Conflict, NotFound."""
        kind = type(obj)
        stored = self.get(kind, obj.account, obj.name)
        version = stored.metadata.resource_version
        if obj.metadata.resource_version != version:
            raise Conflict(
                f"{_title(kind, obj.account, obj.name)} was changed in the meantime: it is at version "
                f"{version}, you read version {obj.metadata.resource_version}; read it again and repeat"
            )
        kept = {
            "creation_timestamp": stored.metadata.creation_timestamp,
            "generation": stored.metadata.generation + _differ_in_spec(obj, stored),
        }
        obj = obj.model_copy(update={"metadata": obj.metadata.model_copy(update=kept)})
        body = KINDS.of(obj).encode(obj)
        if body == KINDS.of(stored).encode(stored):
            return stored
        return self._put(obj, body)

    def delete(self, kind: type[R], account: str, name: str) -> None:
        """Remove an object, whether it can be read or not; raises NotFound."""
        if not self.exists(kind, account, name):
            raise NotFound(f"{_title(kind, account, name)} does not exist")
        self._draft.put(kind.kind, account, name, None)
        self._touched[Key(kind.kind, account, name)] = None

    def next_number(self, sequence: str) -> int:
        """The next number of a sequence: 1, 2, 3..., none given out twice."""
        key, number = Key(SEQUENCE.kind, "", sequence), self._number(sequence) + 1
        self._draft.put(*_place(key), Entry("", sequence, self._next, number))
        self._touched[key] = _Content(json.dumps(number).encode(), {})
        return number

    def finish(self) -> Written | None:
        """What is to be committed; None: nothing."""
        operations = [
            found
            for key, content in self._touched.items()
            if (found := self._operation(key, content)) is not None
        ]
        if not operations:
            return None
        mark = self._take_turn()
        snapshot = self.snapshot.at(self._next)
        return Written([*operations, mark], mark, self._base, snapshot, self._draft.take_deltas())

    def renumber(self, revision: int, of: Mapping[str, int]) -> None:
        """Give the objects that were given out the revision that they have got, if it is another.

        `of` has by path those that have another one than the commit.
        """
        if revision != self._next or of:
            for obj in self._given:
                path = Key(obj.kind, obj.account, obj.name).path
                # They are the caller's by now: there is no other way to tell what they are called.
                obj.metadata.__dict__["resource_version"] = of.get(path, revision)

    def _take_turn(self) -> Put:
        key, number = Key(SEQUENCE.kind, "", _ORDER), self._number(_ORDER) + 1
        expected = self._base.of(SEQUENCE).revision("", _ORDER)
        self._draft.put(*_place(key), Entry("", _ORDER, self._next, number))
        return Put(key, json.dumps(number).encode(), expected, {"writer": self._writer})

    def _number(self, sequence: str) -> int:
        numbers = self.snapshot.of(SEQUENCE)
        if numbers.fault("", sequence) is not None:
            return beyond_use(self.snapshot, sequence)
        return numbers.get("", sequence) or 0

    def _operation(self, key: Key, content: _Content | None) -> Operation | None:
        expected = self._base.view(key.kind).revision(key.account, key.name)
        if content is not None:
            return Put(key, content.body, expected, content.labels)
        return Delete(key, expected) if expected else None

    def _put(self, obj: R, body: bytes) -> R:
        obj = compact(obj.at(self._next))
        key = Key(obj.kind, obj.account, obj.name)
        self._draft.put(*_place(key), Entry(obj.account, obj.name, self._next, obj))
        self._touched[key] = _Content(body, obj.metadata.labels)
        self._given.append(obj)
        return obj


def _place(key: Key) -> tuple[str, str, str]:
    return key.kind, key.account, key.name


def _differ_in_spec(one: Resource, other: Resource) -> bool:
    # Most writes are of a status and have the stored object's own spec.
    if getattr(one, "spec", None) is getattr(other, "spec", None):
        return False
    return one.model_dump_json(include={"spec"}) != other.model_dump_json(include={"spec"})


def _title(kind: type[Resource], account: str, name: str) -> str:
    return f"{kind.kind} {name!r}" + (f" of account {account!r}" if account else "")
