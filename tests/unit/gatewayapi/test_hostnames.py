# SPDX-License-Identifier: Apache-2.0
"""Hostnames: what covers what, intersection, which is more specific."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epic.gatewayapi.hostnames import ANY, covering, covers, intersection, is_hostname, most_specific

LABELS = st.lists(st.sampled_from("abc"), min_size=1, max_size=4)
NAMES = LABELS.map(".".join)
HOSTNAMES = st.one_of(NAMES, NAMES.map(lambda name: f"*.{name}"), st.just(ANY))


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        ("a.b", "a.b", "a.b"),
        ("a.b", "a.c", None),
        ("*.b", "a.b", "a.b"),
        ("*.b", "a.a.b", "a.a.b"),
        ("*.b", "b", None),
        ("*.b", "ab", None),
        ("*.b", "*.a.b", "*.a.b"),
        ("*.a", "*.b", None),
        ("*", "*.b", "*.b"),
        ("*", "*", "*"),
    ],
)
def test_the_intersection_is_the_narrower_of_the_two(one: str, other: str, common: str | None) -> None:
    assert intersection(one, other) == common
    assert intersection(other, one) == common


@given(HOSTNAMES, HOSTNAMES, NAMES)
def test_a_name_is_in_the_intersection_if_it_is_in_both(one: str, other: str, name: str) -> None:
    common = intersection(one, other)
    assert (covers(one, name) and covers(other, name)) == (common is not None and covers(common, name))


@given(st.sets(HOSTNAMES), HOSTNAMES)
def test_what_covers_a_hostname_comes_from_the_narrowest_to_the_widest(all_: set[str], hostname: str) -> None:
    found = list(covering(hostname))
    assert {h for h in all_ if covers(h, hostname)} == all_ & set(found)
    assert found[0] == hostname
    assert found[-1] == ANY
    for narrow, wide in pairwise(found):
        assert covers(wide, narrow)
        assert not covers(narrow, wide)


@given(st.sets(HOSTNAMES), NAMES)
def test_the_most_specific_is_covered_by_all_others_that_match(candidates: set[str], name: str) -> None:
    best = most_specific(candidates, name)
    matching = {c for c in candidates if covers(c, name)}
    assert (best is None) == (not matching)
    assert best is None or all(covers(c, best) for c in matching)


@pytest.mark.parametrize(
    "text", ["", ".", "a..b", "-a.b", "a.*.b", "*", "*.", "a_b", "a.b.", "x" * 64, "A.b"]
)
def test_what_is_no_hostname(text: str) -> None:
    assert not is_hostname(text)


@pytest.mark.parametrize("text", ["a", "*.a", "a-b.c1", "xn--a.example"])
def test_what_is_a_hostname(text: str) -> None:
    assert is_hostname(text)
