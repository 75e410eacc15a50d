# SPDX-License-Identifier: Apache-2.0
"""Which objects have changed since a revision, as far back as deletions are known."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import NamedTuple

from epic.cache.views import Delta, Snapshot
from epic.errors import Conflict
from epic.kinds.registry import KINDS
from epic.store.interface import Change

DELETIONS_KEPT = 10_000


class _Key(NamedTuple):
    kind: str
    account: str
    name: str


class History:
    """Begins with a snapshot, of whose past nothing is known. It belongs to who holds its owner's lock."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._horizon = snapshot.revision
        # Of each object when it was changed last: the revision of the first snapshot that shows it.
        self._changed: OrderedDict[_Key, int] = OrderedDict()
        self._deleted: OrderedDict[_Key, int] = OrderedDict()

    def note(self, snapshot: Snapshot, deltas: Iterable[Delta]) -> None:
        """Take in what differs from the snapshot before."""
        for delta in deltas:
            key = _Key(delta.kind, delta.account, delta.name)
            self._changed[key] = snapshot.revision
            self._changed.move_to_end(key)
            self._deleted.pop(key, None)
            if delta.new is None:
                self._deleted[key] = snapshot.revision
        while len(self._deleted) > DELETIONS_KEPT:
            key, self._horizon = self._deleted.popitem(last=False)
            del self._changed[key]

    def changes(self, since: int, snapshot: Snapshot, kinds: Collection[str]) -> list[Change]:
        """What was changed of these kinds after revision `since`, as it is in the snapshot, in order.

        With `since` 0 deletions may be left out. Raises Conflict when deletions after it are forgotten.
        """
        if since == 0 < self._horizon:
            return _all(snapshot, kinds)
        if since < self._horizon:
            raise Conflict(
                f"changes since revision {since} are not kept any more (only since {self._horizon}); "
                "read the objects again and watch from the store's revision"
            )
        found = []
        for key in reversed(self._changed):
            shown = self._changed[key]
            if shown <= since:
                break
            if key.kind in kinds and snapshot.view(key.kind).fault(key.account, key.name) is None:
                found.append(_change(key, snapshot, shown))
        found.reverse()
        return found


def _change(key: _Key, snapshot: Snapshot, shown: int) -> Change:
    entry = snapshot.view(key.kind).entry(key.account, key.name)
    if entry is None:
        return Change(min(shown, snapshot.revision), *key, None)
    return Change(entry.revision, *key, entry.object)


def _all(snapshot: Snapshot, kinds: Collection[str]) -> list[Change]:
    found = [
        Change(entry.revision, kind, entry.account, entry.name, entry.object)
        for kind in kinds
        for entry in snapshot.view(kind).entries()
    ]
    return sorted(found, key=lambda change: change.revision)


EVERY_KIND = frozenset(kind.name for kind in KINDS)
