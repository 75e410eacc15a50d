# SPDX-License-Identifier: Apache-2.0
"""Counters and groups that keep nothing of what is gone."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")


def count(counter: Counter[_V], value: _V, number: int) -> bool:
    """So many more of the value, or less; whether there were none before, or are none any more."""
    before = counter[value]
    counter[value] = after = before + number
    if not after:
        del counter[value]
    return bool(before) != bool(after)


def count_in(counters: dict[_K, Counter[_V]], key: _K, value: _V, number: int) -> bool:
    """The same in the counter of that key, which is there while it counts something."""
    counter = counters.get(key)
    if counter is None:
        counter = counters[key] = Counter()
    changed = count(counter, value, number)
    if not counter:
        del counters[key]
    return changed


def add(groups: dict[_K, set[_V]], key: _K, value: _V) -> None:
    """Add a value to the group of that key."""
    groups.setdefault(key, set()).add(value)


def discard(groups: dict[_K, set[_V]], key: _K, value: _V) -> None:
    """Take a value out of the group of that key, if it is in it; the group is there while it has some."""
    group = groups.get(key)
    if group is not None:
        group.discard(value)
        if not group:
            del groups[key]
