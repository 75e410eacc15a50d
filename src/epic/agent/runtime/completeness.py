# SPDX-License-Identifier: Apache-2.0
"""The rule of all stored state: who does not know the whole of what is wanted removes nothing."""

from __future__ import annotations

from collections.abc import Iterable


class Completeness:
    """Of which sources everything is known, be it from the disk or from the source itself.

    State that is missing, damaged or of another version counts as nothing known: an agent that lost it must
    not take down what works, nor may a part of what is wanted take away the rest.
    """

    def __init__(self, sources: Iterable[str] = ()) -> None:
        self._sources = set(sources)
        self._known: set[str] = set()

    @property
    def missing(self) -> frozenset[str]:
        """Sources that have yet to be heard."""
        return frozenset(self._sources - self._known)

    @property
    def complete(self) -> bool:
        """Whether things that no source wants may be removed."""
        return not self.missing

    def expect(self, sources: Iterable[str]) -> None:
        """These are the sources now; what was known of others is forgotten."""
        self._sources = set(sources)
        self._known &= self._sources

    def mark(self, *sources: str) -> None:
        """Everything that these want is known."""
        self._known.update(sources)
