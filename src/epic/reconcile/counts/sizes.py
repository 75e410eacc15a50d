# SPDX-License-Identifier: Apache-2.0
"""How many bytes of memory the routes, EndpointSlices and members of each account take."""

from __future__ import annotations

from collections import Counter

from pydantic import BaseModel

from epic.model.base import Resource
from epic.model.members import GWMember
from epic.model.resources import GWEndpointSlice, GWRoute

# As measured of the cache's objects; a field or item is a short text, a number or an address.
_OBJECT = 200
_LIST = 60
_ITEM = 80
_WIDEST = 4
"""Bytes of each letter of a text that has one of the rarest, such as a pictogram."""


def memory_of(spec: BaseModel) -> int:
    """How many bytes of memory a spec takes, about: a list of small objects takes ten for each of its JSON's.

    It is found out of the JSON: to look at each object takes many times as long. Braces and commas in texts
    count as those around objects and items.
    """
    content = spec.model_dump_json(by_alias=True, exclude_none=True).encode()
    return (
        len(content) * (1 if content.isascii() else _WIDEST)
        + _OBJECT * content.count(b"{")
        + _LIST * content.count(b"[")
        + _ITEM * content.count(b",")
    )


class Sizes:
    """Counted change by change."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, str, str], int] = {}
        self._in_account: Counter[str] = Counter()

    def apply(self, kind: str, account: str, name: str, obj: Resource | None) -> None:
        """Take in a route, EndpointSlice or member, or that it is gone; others do not matter."""
        if kind not in (GWRoute.kind, GWEndpointSlice.kind, GWMember.kind):
            return
        self._in_account[account] -= self._of.pop((kind, account, name), 0)
        if isinstance(obj, GWRoute | GWEndpointSlice | GWMember):
            size = memory_of(obj.spec)
            self._of[kind, account, name] = size
            self._in_account[account] += size
        if not self._in_account[account]:
            del self._in_account[account]

    def of(self, account: str) -> int:
        """The bytes of the account's."""
        return self._in_account[account]
