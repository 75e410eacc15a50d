# SPDX-License-Identifier: Apache-2.0
"""What is kept of reports, and for how long."""

from __future__ import annotations

from datetime import timedelta

from epic.live import End, Live, Place, holds
from epic.rotation import NOTHING, Holds

NODE = Place("shop", "c", "n1")


def test_an_end_that_is_silent_holds_nothing_for_sure_and_is_forgotten_in_the_end() -> None:
    now = [0.0]
    live = Live(lambda: now[0])
    keys = Holds(frozenset({1, 2}), 1)
    live.take(NODE, {7: End(holds=keys)}, {})
    assert (holds(live.end(NODE, 7)).epochs, holds(live.end(NODE, 7)).signing) == (keys.epochs, 1)
    now[0] = 31
    assert live.end(NODE, 7) is not None
    assert holds(live.end(NODE, 7)) == NOTHING
    now[0] = 4000
    live.take(Place("shop", "c", "n2"), {}, {})
    assert live.end(NODE, 7) is None


def test_the_last_report_replaces_the_one_before() -> None:
    live = Live(lambda: 0)
    live.take(NODE, {7: End(), 8: End()}, {"too_big": 1})
    live.take(NODE, {8: End(rx_packets=3)}, {"too_big": 2})
    assert live.end(NODE, 7) is None
    assert live.drops([NODE, Place("", "", "epic1")]) == {NODE: ({"too_big": 2}, 0)}


def test_how_long_an_end_signs_with_its_key_is_counted_from_when_it_said_so_first() -> None:
    now = [0.0]
    live = Live(lambda: now[0])
    for time, signing in ((0, 1), (10, 2), (25, 2)):
        now[0] = time
        live.take(NODE, {7: End(holds=Holds(frozenset({1, 2}), signing))}, {})
    now[0] = 30
    assert holds(live.end(NODE, 7)).signing_for == timedelta(seconds=20)


def test_a_node_may_have_tunnels_from_before_and_those_made_since_it_was_listed_any() -> None:
    live = Live()
    assert live.may_have(NODE, 9), "nothing is known of the time before"
    live.remember_listings(newest=8)
    assert live.may_have(NODE, 8)
    assert not live.may_have(NODE, 9)
    live.note_listing(NODE)
    assert live.may_have(NODE, 9)
    assert not live.may_have(Place("shop", "c", "n2"), 9)
    live.remember_listings(newest=99)
    assert not live.may_have(Place("shop", "c", "n2"), 9), "what is known stays so"


def test_when_too_many_nodes_were_listed_tunnels_every_node_of_that_account_may_have_any() -> None:
    live = Live(most_listed=2)
    live.remember_listings(newest=0)
    for number in range(3):
        live.note_listing(Place("shop", "c", f"n{number}"))
    assert live.may_have(Place("shop", "c", "n9"), 1)
    assert not live.may_have(Place("bank", "c", "n9"), 1)
