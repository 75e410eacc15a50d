# SPDX-License-Identifier: Apache-2.0
"""What is held and what is free, against an oracle that looks at every address; nothing is ever lost."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from epic.errors import Conflict, Exhausted, Invalid
from epic.ipam.book import AddressBook, Holdings, Pool
from epic.ipam.ranges import AddressRange, parse_range

SIZE = 12
BASE = IPv4Address("203.0.113.100")
FIRST = Pool("pool 'a'", AddressRange(BASE, BASE + SIZE - 1))
SECOND = Pool("pool 'b'", AddressRange(BASE + 40, BASE + 42))
HUGE = Pool("pool 'six'", parse_range("2001:db8::1-2001:db8::ffff:ffff:ffff:ffff"))
ADDRESSES = [BASE - 1, *(BASE + n for n in range(SIZE)), BASE + SIZE, *(BASE + n for n in (40, 41, 42))]

holders = st.integers(0, 5)
addresses = st.sets(st.sampled_from(ADDRESSES), max_size=4)


class Books(RuleBasedStateMachine):
    """Any order of holding, sharing, letting go and looking."""

    def __init__(self) -> None:
        super().__init__()
        self.book = AddressBook()
        self.oracle: dict[int, set[IPv4Address]] = {}

    @rule(holder=holders, held=addresses)
    def hold(self, holder: int, held: set[IPv4Address]) -> None:
        self.book.hold(holder, held)
        self.oracle[holder] = held

    @rule(holder=holders, count=st.integers(1, 3))
    def hold_what_is_proposed(self, holder: int, count: int) -> None:
        free = self.free()
        if len(free) < count:
            with pytest.raises(Exhausted):
                self.book.propose([FIRST, SECOND], count)
        else:
            proposed = self.book.propose([FIRST, SECOND], count)
            assert proposed == free[:count]
            self.hold(holder, set(proposed))  # type: ignore[arg-type]

    @rule(address=st.sampled_from(ADDRESSES))
    def ask_for_one(self, address: IPv4Address) -> None:
        if address not in FIRST.range and address not in SECOND.range:
            with pytest.raises(Invalid):
                self.book.check_requested([FIRST, SECOND], address)
        elif address in self.free():
            self.book.check_requested([FIRST, SECOND], address)
        else:
            with pytest.raises(Conflict):
                self.book.check_requested([FIRST, SECOND], address)

    @invariant()
    def exactly_what_nobody_holds_is_free(self) -> None:
        free = self.free()
        assert (self.book.propose([FIRST, SECOND], len(free)) if free else []) == free
        for address in ADDRESSES:
            assert set(self.book.holders(address)) == {
                h for h, held in self.oracle.items() if address in held
            }

    def free(self) -> list[IPv4Address]:
        """The free addresses in the order in which they are to be given."""
        held = set().union(*self.oracle.values())
        pools = [[a for a in ADDRESSES if a in pool.range] for pool in (FIRST, SECOND)]
        return [a for pool in pools for a in pool if a not in held]


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=40)


def test_ten_thousand_gateways_that_come_fail_and_go_lose_no_address() -> None:
    chance = random.Random(7)
    book = AddressBook()
    pool = Pool("pool", parse_range("203.0.113.0/25"))
    alive: dict[int, set[object]] = {}
    for gateway in range(10_000):
        try:
            (address,) = book.propose([pool])
        except Exhausted:
            assert sum(map(len, alive.values())) == 128
        else:
            if chance.random() < 0.7:  # else its creation fails after the address was chosen
                book.hold(gateway, [address])
                alive[gateway] = {address}
        if alive and chance.random() < 0.65:
            gone = chance.choice(list(alive))
            book.hold(gone, ())
            del alive[gone]
    for gateway in alive:
        book.hold(gateway, ())
    assert book.propose([pool], 128) == [pool.range.first + n for n in range(128)]


def test_pool_of_any_size_answers_alike() -> None:
    book = AddressBook()
    first = IPv6Address("2001:db8::1")
    assert book.propose([HUGE], 2) == [first, first + 1]
    book.hold("far", [IPv6Address("2001:db8::ffff:ffff:ffff:ffff")])
    for n in range(1000):
        book.hold(n, book.propose([HUGE]))
    assert book.propose([HUGE]) == [first + 1000]
    book.hold(7, ())
    assert book.propose([HUGE], 2) == [first + 7, first + 1000]


def test_addresses_of_routers_in_a_pool_are_passed_over() -> None:
    book = AddressBook()
    pool = Pool("p", parse_range("2001:db8:0:1:ffff:ffff:ffff:fffe-2001:db8:0:2::1"))
    addresses = [
        IPv6Address(f"2001:db8:0:{end}") for end in ("1:ffff:ffff:ffff:fffe", "1:ffff:ffff:ffff:ffff", "2::1")
    ]
    assert book.propose([pool], 3) == addresses
    # What is held of an object that cannot be read may be any.
    book.hold("unreadable", [IPv6Address("2001:db8:0:2::")])
    assert book.propose([pool], 3) == addresses
    book.hold("unreadable", [])
    book.hold("g", addresses)
    with pytest.raises(Exhausted):
        book.propose([pool])
    book.hold("g", [])
    assert book.propose([pool], 3) == addresses


def test_pool_that_grows_or_moves_is_seen_as_it_is() -> None:
    book = AddressBook()
    book.hold("g", [BASE])
    small, large = Pool("p", AddressRange(BASE, BASE)), Pool("p", AddressRange(BASE, BASE + 1))
    with pytest.raises(Exhausted):
        book.propose([small])
    assert book.propose([large]) == [BASE + 1]


def test_exhausted_pools_say_which_and_what_to_do_and_operators_how_big() -> None:
    book = AddressBook()
    book.hold("g", [ip_address(BASE + n) for n in range(SIZE)])
    with pytest.raises(Exhausted, match=r"^pool 'a' has not enough free addresses; .*enlarge it$") as caught:
        book.propose([FIRST])
    assert caught.value.detail == "of 203.0.113.100-203.0.113.111, 12 addresses, 0 are free and 1 needed"


def test_what_several_hold_is_free_when_the_last_lets_go() -> None:
    held: Holdings[str] = Holdings()
    for holder in ("gateway", "tunnel", "quarantine"):
        held.hold(holder, ["x"])
    for holder, left in pairwise(["gateway", "tunnel", "quarantine"]):
        held.hold(holder, [])
        assert left in held.holders("x")
    held.hold("quarantine", [])
    assert "x" not in held and list(held) == []
