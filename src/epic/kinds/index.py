# SPDX-License-Identifier: Apache-2.0
"""Objects of a kind by the values under which they are looked for: nobody lists an account."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from epic.kinds.kind import IndexValue
from epic.model.base import Resource

R = TypeVar("R", bound=Resource)


class Index(Generic[R]):
    """Objects of a kind by the keys that `keys` finds in them, kept by their changes."""

    def __init__(self, kind: type[R], keys: Callable[[R], Iterable[IndexValue]] = lambda _: ()) -> None:
        self.kind = kind
        self._keys = keys
        self._objects: dict[tuple[str, str], R] = {}
        self._found: dict[IndexValue, dict[tuple[str, str], R]] = {}

    def apply(self, account: str, name: str, obj: Resource | None) -> tuple[R | None, R | None]:
        """Take in an object as it is now (None: it is gone); returns it as it was and as it is."""
        id_ = (account, name)
        old = self._objects.pop(id_, None)
        if old is not None:
            for key in set(self._keys(old)):
                found = self._found[key]
                del found[id_]
                if not found:
                    del self._found[key]
        if not isinstance(obj, self.kind):
            return old, None
        self._objects[id_] = obj
        for key in set(self._keys(obj)):
            self._found.setdefault(key, {})[id_] = obj
        return old, obj

    def all(self) -> Iterable[R]:
        """All objects, in no order."""
        return self._objects.values()

    def find(self, account: str, name: str) -> R | None:
        """The object of that name, if there is one."""
        return self._objects.get((account, name))

    def of(self, key: IndexValue) -> list[R]:
        """All objects with the key, in order of name."""
        return [obj for _, obj in sorted(self._found.get(key, {}).items())]
