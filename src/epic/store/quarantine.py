# SPDX-License-Identifier: Apache-2.0
"""Objects that cannot be read: everything else goes on without them, and somebody is told."""

from __future__ import annotations

import logging
from collections.abc import Callable

from epic.store.objects import Key, Unreadable

_log = logging.getLogger(__name__)

Listener = Callable[[Unreadable], None]


class Quarantine:
    """What was found unreadable and has not been replaced or deleted since.

    It is a view of what was read, not a place: the objects stay where they are, for a version that can
    read them. Readers above the store that cannot make sense of an object report it here too.
    """

    def __init__(self) -> None:
        self._entries: dict[Key, Unreadable] = {}
        self._listeners: list[Listener] = []

    def on_report(self, listener: Listener) -> None:
        """Call this for every object that is found unreadable from now on, once for each revision of it."""
        self._listeners.append(listener)

    def report(self, unreadable: Unreadable) -> None:
        """Take an object in, unless it is known at this revision."""
        known = self._entries.get(unreadable.key)
        if known is not None and known.revision >= unreadable.revision:
            return
        self._entries[unreadable.key] = unreadable
        _log.error("unreadable object, served as if it were not there: %s", unreadable)
        for listener in self._listeners:
            listener(unreadable)

    def release(self, key: Key, revision: int | None = None) -> None:
        """Let go of an object that was replaced or deleted at this revision (None: is not there any more),
        or can be read at it.
        """
        known = self._entries.get(key)
        if known is not None and (revision is None or known.revision <= revision):
            del self._entries[key]

    def entries(self) -> list[Unreadable]:
        """All of them, by key."""
        return sorted(self._entries.values(), key=lambda entry: entry.key)
