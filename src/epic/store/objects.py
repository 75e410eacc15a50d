# SPDX-License-Identifier: Apache-2.0
"""What goes into the store and comes out of it: keys, objects as bytes, writes, pages, events."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Self

from epic.errors import Conflict, Invalid

# Leases are objects, so that a commit can depend on one; the store itself writes them.
LEASE_KIND = "Lease"

_MAX_SEGMENT = 253
# A segment of a path, as Kubernetes has it: nothing that a path, an URL or a terminal gives a meaning.
_SEGMENT = re.compile(r"[^/%\x00-\x20\x7f-\x9f\ud800-\udfff]{1,253}")
_KIND = re.compile(r"[A-Z][A-Za-z0-9]{0,62}")


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Which object; `account` is empty for objects of the whole cluster."""

    kind: str
    account: str
    name: str

    @property
    def path(self) -> str:
        """KIND/ACCOUNT/NAME: objects are ordered by it, character by character."""
        return f"{self.kind}/{self.account}/{self.name}"

    @classmethod
    def parse(cls, path: str) -> Self:
        """The key of a path that the store wrote."""
        return cls(*path.split("/", 2))

    def check(self) -> Self:
        """The key itself; raises Invalid when it can be no key."""
        if not _KIND.fullmatch(self.kind):
            raise Invalid(f"kind {self.kind[:80]!r}: expected an upper-case letter, then letters and digits")
        _check_segment("account", self.account or "-")
        _check_segment("name", self.name)
        return self

    def __str__(self) -> str:
        of_account = f" of account {self.account!r}" if self.account else ""
        return f"{self.kind} {self.name!r}{of_account}"


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it is stored, in the newest stored form of its kind."""

    key: Key
    # Of the commit that wrote it: the object's resource version.
    revision: int
    # JSON. The revision is not in it.
    body: bytes
    labels: Mapping[str, str] = field(default_factory=dict)
    # In which form the bytes lie in the store; older than the kind's newest until somebody writes it again.
    stored_form: int = 1


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An object in quarantine: it keeps its place and its bytes, and can be replaced or deleted."""

    key: Key
    revision: int
    reason: str
    # Its bytes, for who looks for what it may hold.
    value: bytes = field(default=b"", repr=False, compare=False)
    newer: bool = False
    """Whether a newer EPIC wrote it, which can read it."""

    def __str__(self) -> str:
        return f"{self.key} at revision {self.revision}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Put:
    """Write an object that is at revision `expected` now; 0: that does not exist."""

    key: Key
    body: bytes
    expected: int
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove an object that is at revision `expected` now."""

    key: Key
    expected: int


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Let the commit happen only if an object that was read is still at this revision; 0: is not there."""

    key: Key
    expected: int


Operation = Put | Delete | Unchanged


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An object that is not at the revision that a commit expected; 0: that does not exist."""

    key: Key
    expected: int
    actual: int

    def __str__(self) -> str:
        if self.expected == 0:
            return f"{self.key} exists already, at revision {self.actual}"
        if self.actual == 0:
            return f"{self.key} does not exist any more (expected at revision {self.expected})"
        return f"{self.key} is at revision {self.actual}, expected at {self.expected}"


class CommitConflict(Conflict):
    """A commit that wrote nothing, because objects are not as it expected."""

    def __init__(self, mismatches: Sequence[Mismatch]) -> None:
        self.mismatches = tuple(mismatches)
        super().__init__("; ".join(map(str, self.mismatches)) + "; read again and repeat")


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, as of `revision`; `continue_token` asks for the next part (empty: the end)."""

    items: tuple[Stored, ...]
    unreadable: tuple[Unreadable, ...]
    revision: int
    continue_token: str


@dataclass(frozen=True, slots=True)
class Event:
    """What an object was changed to at `revision`; None: it was deleted."""

    key: Key
    revision: int
    object: Stored | Unreadable | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Whole commits, in their order: all that was changed up to `revision`. No events: nothing was."""

    revision: int
    events: tuple[Event, ...]


# Most accounts and names come again and again.
@lru_cache(maxsize=65536)
def _check_segment(what: str, text: str) -> None:
    if not _SEGMENT.fullmatch(text) or text in (".", "..") or len(text.encode()) > _MAX_SEGMENT:
        raise Invalid(
            f"{what} {text[:80]!r}: expected 1 to {_MAX_SEGMENT} bytes without spaces, '/', '%' "
            "and control characters"
        )
