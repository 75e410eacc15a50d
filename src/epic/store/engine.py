# SPDX-License-Identifier: Apache-2.0
"""What a database must do to hold the store: ordered paths, revisions, compare-and-swap, history."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Span:
    """The paths from `start` up to, but not including, `end`, in the order of their characters."""

    start: str
    end: str

    def __contains__(self, path: str) -> bool:
        return self.start <= path < self.end


@dataclass(frozen=True, slots=True)
class Entry:
    """The value at a path, and the revision that wrote it."""

    path: str
    revision: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Scan:
    """Entries as of `revision`, in the order of their paths; `more`: there are others after them."""

    entries: Sequence[Entry]
    revision: int
    more: bool


@dataclass(frozen=True, slots=True)
class Change:
    """What was written at `revision`; a value of None is a deletion."""

    path: str
    revision: int
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Changes:
    """Whole commits in their order, all up to `revision`."""

    revision: int
    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class Transaction:
    """Writes that happen together if all `expected` revisions (0: is not there) are the present ones."""

    expected: Mapping[str, int]
    puts: Mapping[str, bytes] = field(default_factory=dict)
    deletes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Committed:
    """The revision of the commit; of a commit that only compared, the store's.

    `of` has the revisions of those paths that were written at another one: an engine may do a large commit in
    parts, all of them or none.
    """

    revision: int
    of: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was written: these paths were at these revisions (0: was not there)."""

    actual: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CommitLimits:
    """How many paths a transaction may name, and how many bytes paths and values may be together."""

    operations: int
    bytes: int


class EngineLease(Protocol):
    """A path that exists as long as its holder lives and keeps it."""

    @property
    def revision(self) -> int:
        """Of the path; whoever acquires it next has another."""

    async def wait_lost(self) -> None:
        """Return when the lease is not ours any more."""

    async def release(self) -> None:
        """Let go of it at once."""


class Engine(Protocol):
    """A database. All calls are made from one event loop.

    They raise StorageFull, OutcomeUnknown (writes), Unavailable and Damaged.
    """

    @property
    def limits(self) -> CommitLimits:
        """Of one transaction."""

    async def revision(self) -> int:
        """The newest durable revision."""

    async def read(self, path: str) -> Entry | None:
        """What is at the path now."""

    async def scan(self, span: Span, limit: int, revision: int | None) -> Scan:
        """At most `limit` entries as they were at `revision` (None: now); fewer when they are large.

        Raises Compacted, and Invalid for a revision that is not reached yet.
        """

    async def commit(self, transaction: Transaction) -> Committed | Refused:
        """Write durably, all or nothing."""

    def changes(self, span: Span, since: int) -> AsyncGenerator[Changes, None]:
        """All changes after revision `since`, for ever; without any, now and then just a revision.

        Raises Compacted, and Invalid for a revision that is not reached yet.
        """

    async def compact(self, revision: int) -> None:
        """Forget what was superseded before `revision`: older ones are Compacted for reads and watches."""

    async def acquire(self, path: str, value: bytes, seconds: float) -> EngineLease:
        """Wait until nobody holds the path, then hold it; others may have it `seconds` after we died."""

    async def close(self) -> None:
        """Give back all resources; the engine must not be used afterwards."""
