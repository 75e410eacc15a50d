# SPDX-License-Identifier: Apache-2.0
"""What an object of a client must be, whatever else there is: limits of fields, and of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from epic.errors import Invalid
from epic.kinds.faults import FieldError
from epic.kinds.field_limits import exceeded_limits
from epic.kinds.kind import Kind, T

MOST_BYTES = 786_432
"""Of what a client gives of an object's spec, as JSON. It has to fit into one commit, with what EPIC writes
besides."""
_SHOWN = 8


def validate(kind: Kind[T], obj: T) -> list[FieldError]:
    """All that is wrong with an object; empty: nothing."""
    found = exceeded_limits(obj)
    # A check may rely on the limits of the fields.
    if not found:
        found = [error for check in kind.checks for error in check(obj)]
    if not found and kind.writer != "epic":
        found += _excess_bytes(kind, obj)
    return found


def refuse_invalid(kind: Kind[T], obj: T, where: str = "") -> None:
    """Raise Invalid with what is wrong with an object, its first faults at least.

    `where` is what the object is called in the request.
    """
    errors = validate(kind, obj)
    if errors:
        raise Invalid(explain(errors, where))


def explain(errors: Sequence[FieldError], where: str = "") -> str:
    """The errors as one text, however many they are."""
    outer = (where,) if where else ()
    shown = [str(error.under(*outer)) for error in islice(errors, _SHOWN)]
    if len(errors) > _SHOWN:
        shown.append(f"{len(errors) - _SHOWN} more faults")
    return "; ".join(shown)


def _excess_bytes(kind: Kind[T], obj: T) -> list[FieldError]:
    spec = getattr(obj, "spec")  # noqa: B009
    # What EPIC fills in is nothing that a client could make less.
    content = spec.model_dump_json(by_alias=True, exclude_none=True, exclude=set(kind.filled_in))
    size = len(content.encode())
    if size <= MOST_BYTES:
        return []
    return [FieldError(("spec",), f"it has {size} bytes as JSON; at most {MOST_BYTES} are possible")]
