# SPDX-License-Identifier: Apache-2.0
"""Checks the limits that are declared with the fields of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from epic.kinds.faults import FieldError
from epic.model.values.limits import Limit

_Check = Callable[[Any], Sequence[FieldError]]
_NOTHING: tuple[FieldError, ...] = ()


def exceeded_limits(value: BaseModel) -> list[FieldError]:
    """The fields of an object, and of what is in it, that are beyond their limits.

    What has too many items is not looked into: the work is bounded by the limits.
    """
    check = _check_of_model(type(value))
    return list(check(value)) if check else []


@cache
def _check_of_model(model: type[BaseModel]) -> _Check | None:
    """What checks an object; None: no field has a limit."""
    fields = [
        (name, info.alias or name, check)
        for name, info in model.model_fields.items()
        if (check := _check_of(info.annotation, [m for m in info.metadata if isinstance(m, Limit)]))
    ]
    if not fields:
        return None

    def check_model(value: Any) -> Sequence[FieldError]:
        found: list[FieldError] = []
        held = value.__dict__
        for name, alias, check in fields:
            item = held[name]
            if item is not None and (errors := check(item)):
                found += [error.under(alias) for error in errors]
        return found

    return check_model


def _check_of(annotation: Any, limits: Sequence[Limit]) -> _Check | None:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _check_of(arguments[0], [*limits, *(m for m in arguments[1:] if isinstance(m, Limit))])
    if origin in (Union, UnionType):
        some = [argument for argument in arguments if argument is not type(None)]
        inner = _check_of(some[0], ()) if len(some) == 1 else None
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        inner = _check_of_any_model if _check_of_model(annotation) else None
    elif origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        each = _check_of(arguments[0], ())
        inner = _check_of_items(each, enumerate) if each else None
    elif origin is dict:
        each = _check_of(arguments[1], ())
        inner = _check_of_items(each, dict.items) if each else None
    else:
        inner = None
    return _bounded(limits, inner)


def _check_of_any_model(value: BaseModel) -> Sequence[FieldError]:
    # A request's model may be a subclass of the field's.
    check = _check_of_model(type(value))
    return check(value) if check else _NOTHING


def _check_of_items(check: _Check, items: Callable[[Any], Any]) -> _Check:
    def check_items(value: Any) -> Sequence[FieldError]:
        found: list[FieldError] = []
        for key, item in items(value):
            if errors := check(item):
                found += [error.under(key) for error in errors]
        return found

    return check_items


def _bounded(limits: Sequence[Limit], inner: _Check | None) -> _Check | None:
    """What checks the limits of a value and, if it has no more items than it may, what is in it."""
    for limit in reversed(limits):
        inner = _limited(limit, inner)
    return inner


def _limited(limit: Limit, inner: _Check | None) -> _Check:
    allows = limit.allows

    def check(value: Any) -> Sequence[FieldError]:
        if not allows(value):
            return (FieldError((), limit.explain(value)),)
        return inner(value) if inner else _NOTHING

    return check


def limits_of(model: type[BaseModel], path: str = "") -> dict[str, Limit]:
    """All limits of a model's fields, by the field's path on the wire; `[]` stands for any item."""
    found: dict[str, Limit] = {}
    for name, info in model.model_fields.items():
        where = f"{path}.{info.alias or name}" if path else info.alias or name
        found.update((where, limit) for limit in info.metadata if isinstance(limit, Limit))
        found |= _limits_in(info.annotation, where)
    return found


def _limits_in(annotation: Any, path: str) -> dict[str, Limit]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return limits_of(annotation, path)
    origin, arguments = get_origin(annotation), get_args(annotation)
    found: dict[str, Limit] = {}
    if origin is Annotated:
        found.update((path, limit) for limit in arguments[1:] if isinstance(limit, Limit))
        return found | _limits_in(arguments[0], path)
    inner = f"{path}[]" if origin in (tuple, dict) else path
    for argument in arguments:
        found |= _limits_in(argument, inner)
    return found
