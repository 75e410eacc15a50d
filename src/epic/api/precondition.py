# SPDX-License-Identifier: Apache-2.0
"""If-Match (RFC 9110): a write that is meant for versions that the client has seen, and for no other.

An object's entity tag is its resourceVersion, in quotes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header

from epic.errors import Invalid, PreconditionFailed
from epic.model.base import Resource

_TAG = r'(?:W/)?"[^"]*"'
_TAGS = re.compile(rf"\s*{_TAG}\s*(?:,\s*{_TAG}\s*)*")


@dataclass(frozen=True)
class Precondition:
    """The versions of which the object must have one; None: it need not even be there."""

    tags: frozenset[str] | None = None

    @property
    def is_given(self) -> bool:
        """Whether the client makes any condition."""
        return self.tags is not None

    def check(self, stored: Resource | None) -> None:
        """Raise PreconditionFailed if the object is not as it must be for the write."""
        if self.tags is None:
            return
        if stored is None:
            raise PreconditionFailed("there is no such object, and If-Match wants one")
        version = stored.metadata.resource_version
        if not self.tags & {"*", f'"{version}"'}:
            raise PreconditionFailed(
                f"{stored.kind} {stored.name!r} is at version {version}, and If-Match wants "
                f"{', '.join(sorted(self.tags))}; read it again"
            )


async def read_precondition(
    if_match: Annotated[
        str | None, Header(description='The resourceVersion that is meant, such as "12", or *.')
    ] = None,
) -> Precondition:
    """The request's condition; raises Invalid for a header that is none."""
    if if_match is None:
        return Precondition()
    if if_match.strip() == "*":
        return Precondition(frozenset({"*"}))
    if not _TAGS.fullmatch(if_match):
        raise Invalid('If-Match: write resource versions in quotes, such as "12", or *')
    # A weak tag is none that a write may rely on: it is equal to no other.
    return Precondition(frozenset(re.findall(_TAG, if_match)))


IfMatch = Annotated[Precondition, Depends(read_precondition)]
