# SPDX-License-Identifier: Apache-2.0
"""How many items the lists of what a client gives have, before any of them is looked at.

An item takes a hundred times as long to be checked and made an object as to be counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from epic.kinds.faults import FieldError
from epic.model.values.limits import Items

_Look = Callable[[Any], Iterator[FieldError]]


def excess_items(model: type[BaseModel], content: object) -> Iterator[FieldError]:
    """The lists and mappings in a JSON object that have more items than the model allows.

    What has too many is not looked into, and what is none of the model's is not seen.
    """
    look = _look_of_model(model)
    return look(content) if look else iter(())


@cache
def _look_of_model(model: type[BaseModel]) -> _Look | None:
    """What looks at an object; None: nothing in it has a limit."""
    fields: list[tuple[str, str, _Look]] = []
    for name, info in model.model_fields.items():
        look = _look_of(info.annotation, [m for m in info.metadata if isinstance(m, Items)])
        if look is not None:
            alias = info.alias or name
            fields += [(spelling, alias, look) for spelling in dict.fromkeys((alias, name))]
    if not fields:
        return None

    def look_at_object(content: Any) -> Iterator[FieldError]:
        if isinstance(content, Mapping):
            for spelling, alias, look in fields:
                if spelling in content:
                    yield from (error.under(alias) for error in look(content[spelling]))

    return look_at_object


def _look_of(annotation: Any, limits: Sequence[Items]) -> _Look | None:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _look_of(arguments[0], [*limits, *(m for m in arguments[1:] if isinstance(m, Items))])
    if origin in (Union, UnionType):
        some = [argument for argument in arguments if argument is not type(None)]
        return _look_of(some[0], limits) if len(some) == 1 else None
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _look_of_model(annotation)
    each = _look_of(arguments[0 if origin is tuple else 1], ()) if origin in (tuple, dict) else None
    return _look_of_items(limits, each) if limits or each else None


def _look_of_items(limits: Sequence[Items], each: _Look | None) -> _Look:
    def look_at_items(content: Any) -> Iterator[FieldError]:
        if not isinstance(content, list | dict):
            return
        for limit in limits:
            if not limit.may_be(content):
                yield FieldError((), limit.explain(content))
                return
        if each is not None:
            items = content.items() if isinstance(content, dict) else enumerate(content)
            for key, item in items:
                yield from (error.under(key) for error in each(item))

    return look_at_items
