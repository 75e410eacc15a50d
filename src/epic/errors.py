# SPDX-License-Identifier: Apache-2.0
"""The few kinds of error that cross rooms; the text says which object, what is wrong, what would be right."""

from __future__ import annotations


class EpicError(Exception):
    """The common parent; `detail` is what only the platform's operators are to read besides."""

    def __init__(self, message: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail

    @property
    def whole(self) -> str:
        """The text for operators."""
        return f"{self} ({self.detail})" if self.detail else str(self)


class NotFound(EpicError):
    """There is no such object."""


class AlreadyExists(EpicError):
    """An object of that name exists."""


class Conflict(EpicError):
    """The object was changed by somebody else in the meantime; read it again and repeat."""


class Invalid(EpicError):
    """The input is wrong."""


class UnsupportedAddress(Invalid):
    """An address of a type that is not served is asked for."""


class AddressNotUsable(Invalid):
    """An address is asked for that gateways cannot have."""


class AddressTaken(Conflict):
    """An address is asked for that somebody has, or has just had."""


class QuotaExceeded(EpicError):
    """The account may have no more of these."""


class Exhausted(EpicError):
    """A pool or the nodes have nothing left to give."""


class Unavailable(EpicError):
    """Another part cannot be reached or refused."""


class OutcomeUnknown(Unavailable):
    """Whether the write happened cannot be told; read again and see."""


class NotWritable(Unavailable):
    """Nothing can be written now. Reads go on, and writes do when the cause is gone; the store logs why."""


class StorageFull(NotWritable):
    """There is no room for the write. Nothing of it was stored, and what was stored is intact."""


class Damaged(EpicError):
    """What is stored cannot be read as what it should be."""


class Compacted(EpicError):
    """The history asked for is not kept any more; list again and watch from there."""
