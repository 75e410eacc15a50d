# SPDX-License-Identifier: Apache-2.0
"""The sorted map is what a dict with sorted keys is, and older maps never change."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from epic.cache import sorted_map
from epic.cache.sorted_map import SortedMap

keys = st.tuples(st.sampled_from(["a", "a-b", "b"]), st.integers(0, 60))
steps = st.lists(st.tuples(keys, st.none() | st.integers(0, 9)), max_size=120)


def assert_same(found: SortedMap[int], expected: dict[tuple[str, int], int]) -> None:
    assert list(found) == sorted(expected)
    assert list(found.values()) == [expected[key] for key in sorted(expected)]
    assert len(found) == len(expected)
    for account in ("a", "a-b", "b", "c"):
        values = [expected[key] for key in sorted(expected) if key[0] == account]
        assert list(found.scan((account,), 1)) == values
        assert list(found.scan((account, 30), 1)) == [
            expected[key] for key in sorted(expected) if key[0] == account and key[1] >= 30
        ]
    for key in [*expected, ("a", -1), ("b", 99)]:
        assert found.get(key) == expected.get(key)


@settings(max_examples=60)
@given(begin=st.dictionaries(keys, st.integers(0, 9)), changes=steps, chunk=st.sampled_from([1, 2, 3, 256]))
def test_any_changes(
    begin: dict[tuple[str, int], int],
    changes: list[tuple[tuple[str, int], int | None]],
    chunk: int,
) -> None:
    kept, sorted_map._CHUNK = sorted_map._CHUNK, chunk
    try:
        expected: dict[tuple[str, int], int] = {}
        maps: list[tuple[SortedMap[int], dict[tuple[str, int], int]]] = [(SortedMap(), {})]
        for key, value in [*begin.items(), *changes]:
            found = maps[-1][0]
            if value is None:
                found = found.without(key)
                expected.pop(key, None)
            else:
                found = found.with_value(key, value)
                expected[key] = value
            maps.append((found, dict(expected)))
        for found, then in maps[:: max(1, len(maps) // 5)]:
            assert_same(found, then)
        assert_same(*maps[-1])
    finally:
        sorted_map._CHUNK = kept
