# SPDX-License-Identifier: Apache-2.0
"""Objects in a fourth of the memory in which pydantic makes them.

An instance that it has made has a dictionary and a set of its own, though no two differ but in the values.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from epic.model.gatewayapi import EndpointConditions, EndpointPort, ParentReference, PathMatch

T = TypeVar("T", bound=BaseModel)

_OFTEN_EQUAL = frozenset({EndpointConditions, EndpointPort, ParentReference, PathMatch})
"""Of flat values; most are like many others."""
_SCALARS = frozenset({str, int, bool, float, type(None)})
_ADDRESSES = frozenset({IPv4Address, IPv6Address})
_EMPTY: dict[Any, Any] = {}
# Which fields were given: of each class and number of them, the set that came last.
_given: dict[tuple[type, int], set[str]] = {}
_set = object.__setattr__


def compact(model: T) -> T:
    """The same frozen object, sharing with others what is equal; one that is so already is given back."""
    kind, given = type(model), model.__pydantic_fields_set__
    shared = _given.get((kind, len(given)))
    if shared is given:
        return model
    if shared != given:
        # A copy of a model copies its set before it adds to it: nobody changes this one.
        shared = _given[kind, len(given)] = set(given)
    values = model.__dict__
    if kind not in _OFTEN_EQUAL:
        return cast("T", _made_of(kind, values, shared))
    first = _first_of(kind, *values.values())
    if not first:
        first.append(_made_of(kind, values, shared))
    return cast("T", first[0])


def _made_of(kind: type[BaseModel], values: dict[str, Any], given: set[str]) -> BaseModel:
    made = kind.__new__(kind)
    # Attributes that are set one by one lie in the instance, without a dictionary.
    for name, value in values.items():
        _set(made, name, value if type(value) in _SCALARS else _compacted(value))
    _set(made, "__pydantic_fields_set__", given)
    _set(made, "__pydantic_extra__", None)
    _set(made, "__pydantic_private__", None)
    return made


def _compacted(value: Any) -> Any:
    kind = type(value)
    if kind is tuple:
        return tuple([item if type(item) in _SCALARS else _compacted(item) for item in value])
    if kind is dict:
        return {key: _compacted(item) for key, item in value.items()} if value else _EMPTY
    if kind in _ADDRESSES:
        return _equal_address(value)
    return compact(value) if isinstance(value, BaseModel) else value


@lru_cache(maxsize=4096, typed=True)
def _first_of(kind: type[BaseModel], *values: object) -> list[BaseModel]:  # noqa: ARG001
    """Where the model of these values is, once there was one."""
    return []


@lru_cache(maxsize=16_384)
def _equal_address(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The first of its equals."""
    return address
