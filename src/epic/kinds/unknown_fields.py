# SPDX-License-Identifier: Apache-2.0
"""Fields of a client's object that its kind does not have: they are ignored, and the client is to know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import islice
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from epic.kinds.kind import Kind
from epic.kinds.strategy import OWN_PREFIX
from epic.model.base import Metadata
from epic.model.values.naming import SOURCES_ANNOTATION

_MOST = 500
_Walk = Callable[[Any, set[str]], None]

_OF_OBJECTS = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
_OF_METADATA = frozenset(
    spelling for name, info in Metadata.model_fields.items() for spelling in (name, info.alias or name)
)


def unknown_in_object(kind: Kind[Any], obj: Mapping[str, Any], path: str = "") -> list[str]:
    """The fields of an object, at `path`, that are not read: anywhere in it, sorted.

    Among them are labels and annotations, which are kept only where they are EPIC's own. Beyond some hundreds
    no more are looked for.
    """
    outer = f"{path}." if path else ""
    found = {f"{outer}{name}" for name in _unknown(obj, _OF_OBJECTS)}
    metadata = _mapping(obj.get("metadata"))
    found |= {f"{outer}metadata.{name}" for name in _unknown(metadata, _OF_METADATA)}
    for texts in ("annotations", "labels"):
        dropped = (key for key in _mapping(metadata.get(texts)) if not _is_kept(str(key)))
        found |= {f"{outer}metadata.{texts}.{key}" for key in islice(dropped, _MOST)}
    known = {f"{outer}{inner}" for inner in kind.known}
    of_spec = unknown_fields(kind.spec, _mapping(obj.get("spec")), f"{outer}spec")
    return sorted({*found, *of_spec} - known)


def _is_kept(key: str) -> bool:
    return key.startswith(OWN_PREFIX) or key == SOURCES_ANNOTATION


def _unknown(content: Mapping[str, Any], known: frozenset[str]) -> Iterable[str]:
    return islice((name for name in content if name not in known), _MOST)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def unknown_fields(model: type[BaseModel], content: Mapping[str, Any], path: str) -> list[str]:
    """The fields in `content`, which is at `path`, that objects of the model do not have, sorted.

    Each is named once, however many items of a list have it: `spec.rules[].colour`. Beyond some hundreds no
    more are looked for.
    """
    found: set[str] = set()
    _walk_of_model(model, path)(content, found)
    return sorted(found)


@cache
def _walk_of_model(model: type[BaseModel], path: str) -> _Walk:
    fields: dict[str, _Walk | None] = {}
    for name, info in model.model_fields.items():
        alias = info.alias or name
        fields[alias] = fields[name] = _walk_of(info.annotation, f"{path}.{alias}")

    def walk(content: Any, found: set[str]) -> None:
        if not isinstance(content, Mapping):
            return
        for key, value in content.items():
            if key not in fields:
                if len(found) < _MOST:
                    found.add(f"{path}.{key}")
            elif (inner := fields[key]) is not None:
                inner(value, found)

    return walk


def _walk_of(annotation: Any, path: str) -> _Walk | None:
    """What looks into a value of that type; None: there is nothing of which fields are known."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _walk_of_model(annotation, path)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _walk_of(arguments[0], path)
    if origin in (Union, UnionType):
        walks = [walk for argument in arguments if (walk := _walk_of(argument, path)) is not None]
        return walks[0] if len(walks) == 1 else None
    if origin in (tuple, dict):
        each = _walk_of(arguments[0] if origin is tuple else arguments[1], f"{path}[]")
        return _walk_of_items(each) if each is not None else None
    return None


def _walk_of_items(each: _Walk) -> _Walk:
    def walk(content: Any, found: set[str]) -> None:
        items = content.values() if isinstance(content, Mapping) else content
        for item in items if isinstance(items, Iterable) and not isinstance(items, str) else ():
            each(item, found)

    return walk
