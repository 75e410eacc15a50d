# SPDX-License-Identifier: Apache-2.0
"""What every store does: objects by kind, account and name, one order of revisions, transactions, watches."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from epic.kinds.kind import IndexValue
from epic.model.base import Resource
from epic.store.objects import Unreadable

R = TypeVar("R", bound=Resource)


@dataclass(frozen=True)
class Change:
    """An object's newest state at `revision`; `object` is None when it was deleted."""

    revision: int
    kind: str
    account: str
    name: str
    object: Resource | None


class Reader(Protocol):
    """Reading objects; `account` is empty for objects of the whole cluster."""

    def get(self, kind: type[R], account: str, name: str) -> R:
        """The object; raises NotFound."""

    def find(self, kind: type[R], account: str, name: str) -> R | None:
        """The object, or None; raises Damaged when it is there and cannot be read."""

    def exists(self, kind: type[Resource], account: str, name: str) -> bool:
        """Whether the object is there, be it that it can be read or not."""

    def find_readable(self, kind: type[R], account: str, name: str) -> R | None:
        """The object; None: it is not there, or cannot be read."""

    def list(self, kind: type[R], account: str | None = None) -> list[R]:
        """All objects of the kind, of one account or (None) of all, ordered by account and name.

        Those that cannot be read are not in it: who removes what no object asks for looks at `unreadable`.
        """

    def by(self, kind: type[R], index: str, value: IndexValue) -> Sequence[R]:
        """The objects that can be read and that an index of the kind has for the value, in their order."""

    def unreadable(
        self, kind: type[Resource] | None = None, account: str | None = None
    ) -> Sequence[Unreadable]:
        """The objects that are there and cannot be read: of one kind or of all, of one account or of all."""


class Transaction(Reader, Protocol):
    """Reads and writes that become durable together, or not at all."""

    @property
    def revision(self) -> int:
        """The revision of the newest durable change when it began."""

    def changes(self, since: int, kinds: Iterable[type[Resource]]) -> Sequence[Change]:
        """What was changed of these kinds after revision `since` until it began: the newest, in order.

        With `since` 0 deletions may be left out. Raises Conflict when it lies so far back that deletions
        after it are forgotten.
        """

    def create(self, obj: R) -> R:
        """Add an object; raises AlreadyExists."""

    def update(self, obj: R) -> R:
        """Replace the object if its resource version is still the stored one; raises Conflict, NotFound.

        An object equal to the stored one changes nothing and keeps its resource version.
        """

    def delete(self, kind: type[R], account: str, name: str) -> None:
        """Remove an object, whether it can be read or not; raises NotFound."""

    def next_number(self, sequence: str) -> int:
        """The next number of a sequence: 1, 2, 3..., none given out twice."""


class Store(Reader, Protocol):
    """The whole store. Methods may be called from any thread."""

    @property
    def revision(self) -> int:
        """The revision of the newest durable change."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Begin a write; it commits when the block ends and rolls back when the block raises."""

    def watch(self, since: int) -> AsyncGenerator[Change, None]:
        """Every change after revision `since`, in order, for ever.

        A change that was superseded before the watcher came to it may be left out; the newest never is.
        Raises Conflict when `since` lies so far back that deletions after it are forgotten.
        """

    def watch_batches(self, since: int) -> AsyncGenerator[tuple[int, Sequence[Change]], None]:
        """The same, with the revision up to which they are all, each time that there is a later one."""
