# SPDX-License-Identifier: Apache-2.0
"""What transactions look things up in: kept from one to the next, never read anew while nothing fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from epic.errors import Conflict
from epic.reconcile.world import KINDS, World
from epic.store.interface import Store, Transaction


class CurrentWorld:
    """The world as each transaction on the store finds it. Any thread may begin one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._world = World()
        self._revision = 0

    @contextmanager
    def transaction(self) -> Iterator[tuple[Transaction, World]]:
        """Begin a write, with the world as it is before it.

        The world may be told of what the transaction changes; what does not become durable is forgotten.
        """
        with self._lock:
            told = self._world.changes
            try:
                with self._store.transaction() as transaction:
                    self._catch_up(transaction)
                    told = self._world.changes
                    yield transaction, self._world
            except BaseException:
                if self._world.changes != told:
                    self._world, self._revision = World(), 0
                raise

    def _catch_up(self, transaction: Transaction) -> None:
        try:
            changes = transaction.changes(self._revision, KINDS)
        except Conflict:  # another process has forgotten deletions that came after our last look
            self._world = World()
            changes = transaction.changes(0, KINDS)
        for change in changes:
            self._world.apply(change)
        self._revision = transaction.revision
