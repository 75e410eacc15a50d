# SPDX-License-Identifier: Apache-2.0
"""For how long inside addresses without a tunnel stay guarded, and how many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from epic.bpf.tables import left_insides
from epic.bpf.tables.left_insides import KEPT_SECONDS, LeftInsides

SLOT = bytes(4)


class FakeMap:
    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.entries.get(key)

    def set(self, key: bytes, value: bytes) -> None:
        self.entries[key] = value

    def delete(self, key: bytes) -> bool:
        return self.entries.pop(key, None) is not None

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self.entries.items())


@pytest.fixture
def maps() -> Any:
    return FakeMap(), FakeMap()


def test_what_is_left_is_guarded_for_as_long_as_replies_are_repeated_and_not_longer(maps: Any) -> None:
    now = 100.0
    left = LeftInsides(maps, lambda: now)
    left.leave(maps[0], b"one")
    now += 10
    left.leave(maps[1], b"two")
    now += KEPT_SECONDS - 10.5
    left.forget()
    assert (set(maps[0].entries), set(maps[1].entries)) == ({b"one"}, {b"two"})
    now += 1
    left.forget()
    assert (set(maps[0].entries), set(maps[1].entries)) == (set(), {b"two"})


def test_an_address_that_a_tunnel_has_again_stays(maps: Any) -> None:
    now = 0.0
    left = LeftInsides(maps, lambda: now)
    left.leave(maps[0], b"one")
    maps[0].set(b"one", SLOT)
    now += KEPT_SECONDS
    left.forget()
    assert maps[0].entries == {b"one": SLOT}


def test_an_address_that_is_left_twice_is_guarded_from_the_last_time_on(maps: Any) -> None:
    now = 0.0
    left = LeftInsides(maps, lambda: now)
    left.leave(maps[0], b"one")
    now += 100
    maps[0].set(b"one", SLOT)
    left.leave(maps[0], b"one")
    now += KEPT_SECONDS - 50
    left.forget()
    assert set(maps[0].entries) == {b"one"}


def test_what_an_earlier_agent_left_is_guarded_as_long_again(maps: Any) -> None:
    now = 0.0
    LeftInsides(maps, lambda: now).leave(maps[0], b"one")
    maps[0].set(b"tunnel", SLOT)
    now += KEPT_SECONDS
    later = LeftInsides(maps, lambda: now)
    later.forget()
    assert set(maps[0].entries) == {b"one", b"tunnel"}
    now += KEPT_SECONDS
    later.forget()
    assert set(maps[0].entries) == {b"tunnel"}


def test_tunnels_that_are_there_come_first(maps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(left_insides, "MOST", 3)
    left = LeftInsides(maps)
    for address in (b"a", b"b", b"c", b"d"):
        left.leave(maps[0], address)
    assert set(maps[0].entries) == {b"b", b"c", b"d"}
    left.keep(1)
    assert set(maps[0].entries) == {b"d"}
    left.keep(-1)
    assert maps[0].entries == {}
