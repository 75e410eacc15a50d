# SPDX-License-Identifier: Apache-2.0
"""The few kinds of error that cross rooms, and processes: the API answers with them, its clients raise them.

A text says which object, what is wrong, what would be right. `reason` is one word for programs, Kubernetes'
own where it has one; `status` is HTTP's. A kind that is like another to programs has the other's.
"""

from __future__ import annotations

from typing import ClassVar


class EpicError(Exception):
    """The common parent; `detail` is what only the platform's operators are to read besides."""

    status: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"

    def __init__(self, message: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail

    @property
    def whole(self) -> str:
        """The text for operators."""
        return f"{self} ({self.detail})" if self.detail else str(self)


class Invalid(EpicError):
    """The input is wrong."""

    status = 400
    reason = "Invalid"


class UnsupportedAddress(Invalid):
    """An address of a type that is not served is asked for."""

    reason = "UnsupportedAddress"


class AddressNotUsable(Invalid):
    """An address is asked for that gateways cannot have."""

    reason = "AddressNotUsable"


class Denied(EpicError):
    """Who asks may not do this."""


class Unauthorized(Denied):
    """The server does not know the user, or the password is another."""

    status = 401
    reason = "Unauthorized"


class Forbidden(Denied):
    """The user may not do this."""

    status = 403
    reason = "Forbidden"


class QuotaExceeded(EpicError):
    """The account may have no more of these."""

    status = 403
    reason = "QuotaExceeded"


class NotFound(EpicError):
    """There is no such object."""

    status = 404
    reason = "NotFound"


class Conflict(EpicError):
    """The object was changed by somebody else in the meantime; read it again and repeat."""

    status = 409
    reason = "Conflict"


class PreconditionFailed(EpicError):
    """The object is not at a version that the request is meant for; read it again."""

    status = 412
    reason = "PreconditionFailed"


class AlreadyExists(EpicError):
    """An object of that name exists."""

    status = 409
    reason = "AlreadyExists"


class AddressTaken(Conflict):
    """An address is asked for that somebody has, or has just had."""

    reason = "AddressNotUsable"


class NameTaken(Conflict):
    """A gateway of the account has the DNS name already."""

    reason = "NameTaken"


class Compacted(EpicError):
    """The history asked for is not kept any more; list again and watch from there."""

    status = 410
    reason = "Expired"


class TooManyRequests(EpicError):
    """Too much is asked for at once, or too often; repeat it later."""

    status = 429
    reason = "TooManyRequests"


class TooLarge(Invalid):
    """It is more than a request or a reply may hold."""

    status = 413
    reason = "TooLarge"


class Damaged(EpicError):
    """What is stored cannot be read as what it should be."""

    reason = "Damaged"


class WrittenByNewer(Damaged):
    """It may be whole, but is in a form that only a newer EPIC reads."""


class Unavailable(EpicError):
    """Another part cannot be reached or refused."""

    status = 503
    reason = "Unavailable"


class Exhausted(EpicError):
    """A pool or the nodes have nothing left to give."""

    status = 503
    reason = "NoRoom"


class OutcomeUnknown(Unavailable):
    """Whether the write happened cannot be told; read again and see."""

    reason = "OutcomeUnknown"


class NotWritable(Unavailable):
    """Nothing can be written now. Reads go on, and writes do when the cause is gone; the store logs why."""

    reason = "NotWritable"


class StorageFull(NotWritable):
    """There is no room for the write. Nothing of it was stored, and what was stored is intact."""


_KINDS: tuple[type[EpicError], ...] = (
    Invalid,
    UnsupportedAddress,
    AddressNotUsable,
    Unauthorized,
    Forbidden,
    QuotaExceeded,
    NotFound,
    Conflict,
    AlreadyExists,
    AddressTaken,
    NameTaken,
    Compacted,
    PreconditionFailed,
    TooManyRequests,
    TooLarge,
    Unavailable,
    Exhausted,
    OutcomeUnknown,
    NotWritable,
)
_BY_REASON = {(kind.status, kind.reason): kind for kind in _KINDS}
_BY_STATUS = {kind.status: kind for kind in reversed(_KINDS)}
_CLIENT, _SERVER = 400, 500


def kind_of(status: int, reason: str = "") -> type[EpicError]:
    """The kind that a server's refusal means; without a reason that is known, as far as its status tells.

    What went wrong within a server is `Unavailable` to its clients: another try may succeed.
    """
    known = _BY_REASON.get((status, reason)) or _BY_STATUS.get(status)
    if known is not None:
        return known
    return Invalid if _CLIENT <= status < _SERVER else Unavailable


def reason_of(status: int) -> str:
    """The word for a refusal of which only the status is known."""
    return _BY_STATUS.get(status, EpicError if status >= _SERVER else Invalid).reason
