# SPDX-License-Identifier: Apache-2.0
"""Second chance: how many packets of unknown flows siblings are asked about."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from chance_bed import ACCOUNTS, ALL_GATEWAYS, OWN, PUBLICS, Bed, ends
from frames import ETHER, INNER, Families
from oracle_chance import DROPPED, REDIRECTED
from oracle_chance_passing import FOUND

from epic.bpf.tables.budgets import account_key
from epic.bpf.tables.records import pack_address

pytestmark = pytest.mark.root

AT_ONCE, RESERVE, KEPT, LITTLE = 50_000, 10_000, 50_000, 6_250
QUIET, RAISED, ACCOUNT, NODE = 10**9 // 2_000, 10**9 // 6_250, 10**9 // 6_250, 10**9 // 50_000
"""Nanoseconds that a packet uses up: of a gateway's share, of that after its list has changed, of its
account's, of all's."""
RAISED_FOR = 600 * 10**9
SECOND = 10**9
COST, STRAY = 4, 3
"""Of how many packets one uses up the share, and of how many it is given back when it has an owner."""


@pytest.fixture
def long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes now seems to have changed before the time in which a share is larger."""
    before = (time.monotonic_ns() - RAISED_FOR - SECOND) % 2**64
    monkeypatch.setattr("epic.bpf.tables.siblings.time", SimpleNamespace(monotonic_ns=lambda: before))


def all_of(families: Families) -> tuple[bytes, bytes, bytes]:
    """The gateway's budget, its account's, and that of all."""
    return pack_address(PUBLICS[families.inner]), account_key(ACCOUNTS[families.inner]), ALL_GATEWAYS


def uses(bed: Bed, families: Families) -> tuple[int, ...]:
    """What one packet uses up of the gateway's share, of its account's, and of all gateways'."""
    until = time.monotonic_ns() + SECOND // 2
    for whose in all_of(families):
        bed.spend_budget(whose, until)
    assert ends(bed, ETHER / bed.stranger(families.inner).packet())[2] == {"passed_on"}
    return tuple(bed.spent_budget(whose) - until for whose in all_of(families))


@INNER
def test_after_the_list_has_changed_a_gateway_may_ask_about_as_many_as_its_account_an_eighth_of_what_all_may(
    bed: Bed, families: Families
) -> None:
    assert uses(bed, families) == (COST * RAISED, COST * ACCOUNT, COST * NODE)
    assert RAISED == ACCOUNT == 8 * NODE


@pytest.fixture
def quiet(bed: Bed, families: Families, long_ago: None) -> bytes:
    """A gateway whose list changed long ago; whose budget that is."""
    with bed.namespace:
        bed.plane.delete_siblings(PUBLICS[families.inner])
    bed.tell(families.inner)
    return pack_address(PUBLICS[families.inner])


@INNER
@pytest.mark.usefixtures("quiet")
def test_ten_minutes_later_it_may_ask_about_no_more_than_before(bed: Bed, families: Families) -> None:
    assert uses(bed, families) == (COST * QUIET, COST * ACCOUNT, COST * NODE)


@INNER
@pytest.mark.usefixtures("quiet")
def test_a_merged_packet_uses_up_what_its_segments_would(bed: Bed, families: Families) -> None:
    """Each of them is answered by itself, and each answer gives back. The kernel wraps none of test runs."""
    mine, until = pack_address(PUBLICS[families.inner]), time.monotonic_ns() + SECOND // 2
    bed.spend_budget(mine, until)
    bed.program.gso(100, 7)
    bed.run(ETHER / bed.stranger(families.inner).packet("A", bytes(700)))
    assert bed.counted()["passed_on"] == 7
    assert bed.spent_budget(mine) - until == 7 * COST * QUIET


@INNER
def test_at_once_a_gateway_may_ask_about_so_many(bed: Bed, families: Families) -> None:
    """Within a second of the last one of them, either way."""
    mine, burst = pack_address(PUBLICS[families.inner]), AT_ONCE * RAISED
    frame = ETHER / bed.stranger(families.inner).packet()
    bed.spend_budget(mine, time.monotonic_ns() + burst - SECOND)
    assert ends(bed, frame)[2] == {"passed_on"}
    bed.spend_budget(mine, time.monotonic_ns() + burst + SECOND)
    assert bed.run(frame).verdict == DROPPED
    assert bed.counted()["over_budget"] == 1


@INNER
@pytest.mark.parametrize("used, most", [(LITTLE // 2, AT_ONCE + KEPT), (2 * LITTLE, AT_ONCE)])
@pytest.mark.parametrize("share, interval", [(0, ACCOUNT), (1, NODE)], ids=["an account", "all"])
def test_of_what_several_share_a_part_is_kept_for_those_that_have_used_little(
    bed: Bed, families: Families, share: int, interval: int, used: int, most: int
) -> None:
    """Gateways of an account, accounts of a node: those that are flooded at once leave it to the others."""
    frame, until = ETHER / bed.stranger(families.inner).packet(), most * interval
    own, shared, *_ = all_of(families)[share:]
    for taken, verdict in ((until - SECOND // 4, REDIRECTED), (until + SECOND // 4, DROPPED)):
        bed.renew_shared_budgets()
        bed.spend_budget(own, time.monotonic_ns() + used * RAISED)
        bed.spend_budget(shared, time.monotonic_ns() + taken)
        assert bed.run(frame).verdict == verdict


@INNER
def test_gateways_of_one_account_share_what_it_may(bed: Bed, families: Families) -> None:
    """However many of them are flooded, each below its own bound, other accounts have theirs."""
    other = 10 - families.inner
    bed.tell(other, account=ACCOUNTS[families.inner])
    _, account, everybody = all_of(families)
    bed.spend_budget(account, time.monotonic_ns() + (AT_ONCE + KEPT) * ACCOUNT + SECOND)
    before = bed.spent_budget(everybody)
    for inner in (families.inner, other):
        assert bed.run(ETHER / bed.stranger(inner).packet()).verdict == DROPPED
    assert bed.spent_budget(everybody) == before
    bed.tell(other)
    assert ends(bed, ETHER / bed.stranger(other).packet())[2] == {"passed_on"}


@INNER
def test_what_is_over_a_gateways_share_uses_up_nothing_of_others(bed: Bed, families: Families) -> None:
    """A gateway that is flooded leaves the others theirs."""
    mine, other = (pack_address(PUBLICS[inner]) for inner in (families.inner, 10 - families.inner))
    bed.spend_budget(mine, 1 << 62)
    before = bed.spent_budget(ALL_GATEWAYS), bed.spent_budget(other)
    assert bed.run(ETHER / bed.stranger(families.inner).packet()).verdict == DROPPED
    assert (bed.spent_budget(ALL_GATEWAYS), bed.spent_budget(other)) == before
    assert ends(bed, ETHER / bed.stranger(10 - families.inner).packet())[2] == {"passed_on"}


@INNER
def test_what_is_sent_again_goes_before_what_comes_for_the_first_time(
    bed: Bed, families: Families, quiet: bytes
) -> None:
    """A connection that is moved in a flood of strays waits for its second packet, and no longer."""
    again, first = (ETHER / each(families.inner).packet() for each in (bed.stranger, bed.another))
    taken = time.monotonic_ns() + (AT_ONCE + RESERVE // 2) * QUIET
    bed.spend_budget(quiet, taken)
    assert bed.run(again).verdict == DROPPED
    assert ends(bed, again)[2] == {"passed_on"}
    assert bed.spent_budget(quiet) == taken + COST * QUIET, "the rate is the same"
    assert bed.run(first).verdict == DROPPED
    assert ends(bed, again)[2] == {"passed_on"}


@INNER
def test_what_is_sent_again_has_its_bound_too(bed: Bed, families: Families, quiet: bytes) -> None:
    again = ETHER / bed.stranger(families.inner).packet()
    bed.spend_budget(quiet, time.monotonic_ns() + (AT_ONCE + RESERVE) * QUIET + SECOND)
    for _ in range(3):
        assert bed.run(again).verdict == DROPPED


@INNER
def test_of_one_that_has_an_owner_most_is_given_back(bed: Bed, families: Families, quiet: bytes) -> None:
    """What is nobody's, or is lost on its way, has cost more."""
    stranger, until = bed.stranger(families.inner), time.monotonic_ns() + SECOND // 2
    for whose in all_of(families):
        bed.spend_budget(whose, until)
    assert ends(bed, ETHER / stranger.packet())[2] == {"passed_on"}
    found = bed.passed_on(stranger.packet(), flags=FOUND, origin=OWN, visited=0b0110, spare=1)
    assert ends(bed, found)[2] == {"learned"}
    assert [bed.spent_budget(whose) - until for whose in all_of(families)] == [QUIET, ACCOUNT, NODE]


@INNER
def test_no_more_is_given_back_than_was_used(bed: Bed, families: Families, quiet: bytes) -> None:
    """The list may have changed meanwhile, and the share be as new."""
    found = {"flags": FOUND, "origin": OWN, "visited": 0b0110, "spare": 1}
    for used in (0, STRAY * NODE):
        for whose in all_of(families):
            bed.spend_budget(whose, used)
        assert ends(bed, bed.passed_on(bed.stranger(families.inner).packet(), **found))[2] == {"learned"}
        assert {bed.spent_budget(whose) for whose in all_of(families)} == {used}
    assert ends(bed, ETHER / bed.another(families.inner).packet())[2] == {"passed_on"}
