# SPDX-License-Identifier: Apache-2.0
"""What a client says of an object besides its spec: which version it saw, and who asks for the object."""

from __future__ import annotations

from typing import TypeVar

from epic.api.bodies import InputMetadata
from epic.errors import Conflict, Invalid
from epic.model.base import Resource
from epic.model.values.naming import SOURCES_ANNOTATION

_Stored = TypeVar("_Stored", bound=Resource)


def check_version(given: InputMetadata, stored: Resource) -> None:
    """Raise Conflict if the client means another version than the one that there is; it need not name one."""
    if given.resource_version not in {None, stored.metadata.resource_version}:
        raise Conflict(
            f"{stored.kind} {stored.name!r} has been changed since version {given.resource_version}; "
            f"read it again (it is at {stored.metadata.resource_version})"
        )


def check_name(given: InputMetadata, name: str, where: str) -> None:
    """Raise Invalid if the client means another object than that of the path; it need not name one.

    `where` is what the object is called in the request.
    """
    if given.name not in {"", name}:
        raise Invalid(f"{where}.metadata.name: {given.name!r} is not the name {name!r} in the path")


def with_sources(given: InputMetadata, obj: _Stored, *, keeps: bool = True) -> _Stored:
    """The object with those who ask for it, where the client names them; else as it is.

    Unless it `keeps` those that it has: they asked for something else.
    """
    if SOURCES_ANNOTATION not in given.annotations and (
        keeps or SOURCES_ANNOTATION not in obj.metadata.annotations
    ):
        return obj
    others = {name: value for name, value in obj.metadata.annotations.items() if name != SOURCES_ANNOTATION}
    named = {name: value for name, value in given.annotations.items() if name == SOURCES_ANNOTATION}
    annotations = {**others, **named}
    metadata = obj.metadata.model_copy(update={"annotations": annotations})
    return obj.model_copy(update={"metadata": metadata})
