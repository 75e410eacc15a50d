# SPDX-License-Identifier: Apache-2.0
"""A snapshot that is being made of another one, and which objects differ between them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from epic.cache.views import Delta, Entry, Fault, Snapshot


class Draft:
    """Starts as the snapshot; `snapshot` is what has become of it so far."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._deltas: dict[tuple[str, str, str], Delta] = {}

    def put(self, kind: str, account: str, name: str, new: Entry[Any] | Fault | None) -> None:
        """Let this be in the object's place; None: nothing."""
        view = self.snapshot.view(kind)
        before = view.get(account, name)
        self.snapshot = self.snapshot.with_view(kind, view.changed(account, name, new))
        after = new.object if isinstance(new, Entry) else None
        self._note(Delta(kind, account, name, before, after))

    def adopt(self, snapshot: Snapshot, deltas: Iterable[Delta]) -> None:
        """Be this snapshot, which differs by the deltas from the one that it was made of."""
        self.snapshot = snapshot
        for delta in deltas:
            self._note(delta)

    def reach(self, revision: int) -> None:
        """What was put is all up to this revision."""
        self.snapshot = self.snapshot.at(revision)

    def take_deltas(self) -> list[Delta]:
        """What differs from the snapshot that it was at the last call, or at first."""
        deltas, self._deltas = self._deltas, {}
        return list(deltas.values())

    def _note(self, delta: Delta) -> None:
        key = (delta.kind, delta.account, delta.name)
        noted = self._deltas.get(key)
        self._deltas[key] = replace(noted, new=delta.new) if noted else delta
