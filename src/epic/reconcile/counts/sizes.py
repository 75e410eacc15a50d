# SPDX-License-Identifier: Apache-2.0
"""How many bytes the routes and EndpointSlices of each account have: memory and disk grow with them."""

from __future__ import annotations

from collections import Counter

from epic.model.base import Resource
from epic.model.resources import GWEndpointSlice, GWRoute


class Sizes:
    """Counted change by change."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, str, str], int] = {}
        self._in_account: Counter[str] = Counter()

    def apply(self, kind: str, account: str, name: str, obj: Resource | None) -> None:
        """Take in a route or EndpointSlice, or that it is gone; others do not matter."""
        if kind not in (GWRoute.kind, GWEndpointSlice.kind):
            return
        self._in_account[account] -= self._of.pop((kind, account, name), 0)
        if isinstance(obj, GWRoute | GWEndpointSlice):
            size = len(obj.spec.model_dump_json(by_alias=True, exclude_none=True).encode())
            self._of[kind, account, name] = size
            self._in_account[account] += size
        if not self._in_account[account]:
            del self._in_account[account]

    def of(self, account: str) -> int:
        """The bytes of the account's, as JSON."""
        return self._in_account[account]
