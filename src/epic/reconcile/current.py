# SPDX-License-Identifier: Apache-2.0
"""What transactions look things up in: kept from one to the next, whatever fails in between."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from epic.errors import Conflict, NotWritable
from epic.reconcile.world import KINDS, Key, World
from epic.store.health import CANNOT_WRITE
from epic.store.interface import Change, Store, Transaction

_WAIT_SECONDS = 10.0
"""On a disk that hangs whoever comes after it goes away again, with its thread."""
_CLASSES = {kind.kind: kind for kind in KINDS}


class _NotingWorld(World):
    """A world that remembers of which objects it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: set[tuple[str, str, str]] = set()

    def apply(self, change: Change) -> set[Key]:
        """Take in a change; returns what is to be looked at because of it."""
        if change.kind in _CLASSES:
            self.told.add((change.kind, change.account, change.name))
        return super().apply(change)


class CurrentWorld:
    """The world as each transaction on the store finds it. Any thread may begin one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._world = _NotingWorld()
        self._revision: int | None = None

    def prepare(self) -> None:
        """Read everything, unless that was done; else the first transaction does. Raises NotWritable."""
        with self._locked():
            if self._revision is None:
                self._read_all()

    @contextmanager
    def transaction(self) -> Iterator[tuple[Transaction, World]]:
        """Begin a write, with the world as it is before it.

        The world may be told of what the transaction changes; what does not become durable is forgotten.
        """
        with self._locked():
            if self._revision is None:
                self._read_all()
            self._world.told.clear()
            try:
                with self._store.transaction() as transaction:
                    self._catch_up(transaction)
                    self._world.told.clear()
                    yield transaction, self._world
            except BaseException:
                self._restore()
                raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=_WAIT_SECONDS):
            raise NotWritable(CANNOT_WRITE, "another transaction does not end")
        try:
            yield
        finally:
            self._lock.release()

    def _read_all(self) -> None:
        """Begin anew, before the transaction: nobody else who writes is to wait for that."""
        revision, world = self._store.revision, _NotingWorld()
        for kind in KINDS:
            for obj in self._store.list(kind):
                world.note(obj)
        world.hold_unreadable(self._store.unreadable())
        # What was changed meanwhile is taken in once more.
        self._world, self._revision = world, revision

    def _catch_up(self, transaction: Transaction) -> None:
        try:
            changes = transaction.changes(self._revision or 0, KINDS)
        except Conflict:  # another process has forgotten deletions that came after our last look
            self._world = _NotingWorld()
            self._world.hold_unreadable(transaction.unreadable())
            changes = transaction.changes(0, KINDS)
        for change in changes:
            self._world.apply(change)
        self._revision = transaction.revision

    def _restore(self) -> None:
        """Bring what a transaction told of, and did not write, back to what is stored.

        What others write meanwhile may be in it before its turn: the next transaction takes it in again.
        """
        told = set(self._world.told)
        try:
            for kind, account, name in told:
                obj = self._store.find(_CLASSES[kind], account, name)
                revision = obj.metadata.resource_version if obj is not None else 0
                self._world.apply(Change(revision, kind, account, name, obj))
        except Exception:  # whatever is in it now: it is read anew
            self._revision = None
