# SPDX-License-Identifier: Apache-2.0
"""An immutable map in the order of its keys; one that differs in a key shares all but a chunk with it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any, Generic, TypeVar, cast

V = TypeVar("V")

# Tuples, for they are compared without running any Python.
SortKey = tuple[Any, ...]

_CHUNK = 256

Chunk = tuple[tuple[SortKey, ...], tuple[Any, ...]]


class SortedMap(Generic[V]):
    """Values by key. All keys must be comparable with each other."""

    __slots__ = ("_chunks", "_firsts", "_size")

    def __init__(
        self, chunks: tuple[Chunk, ...] = (), firsts: tuple[SortKey, ...] = (), size: int = 0
    ) -> None:
        """To be called without arguments: it begins empty."""
        self._chunks = chunks
        self._firsts = firsts
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[SortKey]:
        for keys, _ in self._chunks:
            yield from keys

    def values(self) -> Iterator[V]:
        """All values in the order of their keys."""
        for _, values in self._chunks:
            yield from values

    def get(self, key: SortKey) -> V | None:
        """The value, or None."""
        at = bisect_right(self._firsts, key) - 1
        if at < 0:
            return None
        keys, values = self._chunks[at]
        place = bisect_left(keys, key)
        return cast("V", values[place]) if place < len(keys) and keys[place] == key else None

    def with_value(self, key: SortKey, value: V) -> SortedMap[V]:
        """The map with another value at the key."""
        if not self._chunks:
            return SortedMap((((key,), (value,)),), (key,), 1)
        at = max(bisect_right(self._firsts, key) - 1, 0)
        keys, values = self._chunks[at]
        place = bisect_left(keys, key)
        there = place < len(keys) and keys[place] == key
        new_keys = keys if there else (*keys[:place], key, *keys[place:])
        new: Chunk = new_keys, (*values[:place], value, *values[place + there :])
        return self._with_chunk(at, at + 1, _split(new), self._size + (not there))

    def without(self, key: SortKey) -> SortedMap[V]:
        """The map without the key."""
        at = bisect_right(self._firsts, key) - 1
        if at < 0:
            return self
        keys, values = self._chunks[at]
        place = bisect_left(keys, key)
        if place == len(keys) or keys[place] != key:
            return self
        new: Chunk = (*keys[:place], *keys[place + 1 :]), (*values[:place], *values[place + 1 :])
        end = at + 1
        if end < len(self._chunks) and len(new[0]) + len(self._chunks[end][0]) <= _CHUNK:
            new = new[0] + self._chunks[end][0], new[1] + self._chunks[end][1]
            end += 1
        return self._with_chunk(at, end, [new] if new[0] else [], self._size - 1)

    def scan(self, first: SortKey, prefix: int) -> Iterator[V]:
        """The values from the key `first` on, as long as the first `prefix` parts of the keys are its own."""
        at = max(bisect_right(self._firsts, first) - 1, 0)
        wanted = first[:prefix]
        for keys, values in self._chunks[at : at + 1]:
            for place in range(bisect_left(keys, first), len(keys)):
                if keys[place][:prefix] != wanted:
                    return
                yield values[place]
        for keys, values in self._chunks[at + 1 :]:
            for key, value in zip(keys, values, strict=True):
                if key[:prefix] != wanted:
                    return
                yield value

    def _with_chunk(self, at: int, end: int, new: list[Chunk], size: int) -> SortedMap[V]:
        firsts = (*self._firsts[:at], *(keys[0] for keys, _ in new), *self._firsts[end:])
        return SortedMap((*self._chunks[:at], *new, *self._chunks[end:]), firsts, size)


def _split(chunk: Chunk) -> list[Chunk]:
    keys, values = chunk
    if len(keys) <= 2 * _CHUNK:
        return [chunk]
    half = len(keys) // 2
    return [(keys[:half], values[:half]), (keys[half:], values[half:])]
