# SPDX-License-Identifier: Apache-2.0
"""Objects that are there and cannot be read, for who looks things up in memory: they are not gone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from epic.model.base import Resource
from epic.store.objects import Unreadable


class UnreadableObjects:
    """Kept object by object, until each can be read or is gone. They are few."""

    def __init__(self) -> None:
        self._values: defaultdict[str, dict[tuple[str, str], bytes]] = defaultdict(dict)

    def hold(self, found: Unreadable) -> None:
        """It cannot be read."""
        key = found.key
        self._values[key.kind][key.account, key.name] = found.value

    def release(self, kind: str, account: str, name: str) -> bool:
        """It can be read, or is gone; returns whether it could not be read."""
        return self._values[kind].pop((account, name), None) is not None

    def has(self, kind: type[Resource], account: str, name: str) -> bool:
        """Whether the object is there and cannot be read."""
        return (account, name) in self._values[kind.kind]

    def has_any(self, account: str, *kinds: type[Resource]) -> bool:
        """Whether the account has any such object of these kinds."""
        return any(owner == account for kind in kinds for owner, _ in self._values[kind.kind])

    def names(self, kind: type[Resource], account: str = "") -> set[str]:
        """The names of those of a kind that the account has; without one: that belong to none."""
        return {name for owner, name in self._values[kind.kind] if owner == account}

    def all(self, kind: type[Resource]) -> list[tuple[str, str, bytes]]:
        """Account, name and bytes of each of a kind."""
        return [(*name, value) for name, value in sorted(self._values[kind.kind].items())]

    def may_name(self, kind: type[Resource], account: str, words: Iterable[str]) -> bool:
        """Whether some object of the account has all of these words in its bytes, each in quotes."""
        quoted = [f'"{word}"'.encode() for word in words]
        values = (value for (owner, _), value in self._values[kind.kind].items() if owner == account)
        return any(all(word in value for word in quoted) for value in values)
