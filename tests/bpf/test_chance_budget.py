# SPDX-License-Identifier: Apache-2.0
"""Second chance: how many packets of unknown flows siblings are asked about."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from chance_bed import ALL_GATEWAYS, PUBLICS, Bed, ends
from frames import ETHER, INNER, Families
from oracle_chance import DROPPED

from epic.bpf.records import pack_address

pytestmark = pytest.mark.root

AT_ONCE = 50_000
QUIET, RAISED, NODE = 10**9 // 2_000, 10**9 // 20_000, 10**9 // 50_000
"""Nanoseconds that a packet uses up: of a gateway's share, of that after its list has changed, of all's."""
RAISED_FOR = 600 * 10**9
SECOND = 10**9


@pytest.fixture
def long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes now seems to have changed before the time in which a share is larger."""
    before = (time.monotonic_ns() - RAISED_FOR - SECOND) % 2**64
    monkeypatch.setattr("epic.bpf.siblings.time", SimpleNamespace(monotonic_ns=lambda: before))


def uses(bed: Bed, families: Families) -> tuple[int, int]:
    """What one packet uses up of the gateway's share and of all gateways'."""
    mine, until = pack_address(PUBLICS[families.inner]), time.monotonic_ns() + SECOND // 2
    for whose in (mine, ALL_GATEWAYS):
        bed.spend_budget(whose, until)
    assert ends(bed, ETHER / bed.stranger(families.inner).packet())[2] == {"passed_on"}
    return bed.spent_budget(mine) - until, bed.spent_budget(ALL_GATEWAYS) - until


@INNER
def test_after_the_list_has_changed_a_gateway_may_ask_about_ten_times_as_many(
    bed: Bed, families: Families
) -> None:
    assert uses(bed, families) == (RAISED, NODE)


@INNER
@pytest.mark.usefixtures("long_ago")
def test_ten_minutes_later_it_may_ask_about_no_more_than_before(bed: Bed, families: Families) -> None:
    with bed.namespace:
        bed.plane.delete_siblings(PUBLICS[families.inner])
    bed.tell(families.inner)
    assert uses(bed, families) == (QUIET, NODE)


@INNER
@pytest.mark.parametrize("all_gateways", [False, True])
def test_at_once_it_may_ask_about_so_many(bed: Bed, families: Families, all_gateways: bool) -> None:
    """Within a second of the last one of them, either way."""
    whose = ALL_GATEWAYS if all_gateways else pack_address(PUBLICS[families.inner])
    burst = AT_ONCE * (NODE if all_gateways else RAISED)
    frame = ETHER / bed.stranger(families.inner).packet()
    bed.spend_budget(whose, time.monotonic_ns() + burst - SECOND)
    assert ends(bed, frame)[2] == {"passed_on"}
    bed.spend_budget(whose, time.monotonic_ns() + burst + SECOND)
    assert bed.run(frame).verdict == DROPPED
    assert bed.counted()["over_budget"] == 1


@INNER
def test_what_is_over_a_gateways_share_uses_up_nothing_of_others(bed: Bed, families: Families) -> None:
    """A gateway that is flooded leaves the others theirs."""
    mine, other = (pack_address(PUBLICS[inner]) for inner in (families.inner, 10 - families.inner))
    bed.spend_budget(mine, 1 << 62)
    before = bed.spent_budget(ALL_GATEWAYS), bed.spent_budget(other)
    assert bed.run(ETHER / bed.stranger(families.inner).packet()).verdict == DROPPED
    assert (bed.spent_budget(ALL_GATEWAYS), bed.spent_budget(other)) == before
    assert ends(bed, ETHER / bed.stranger(10 - families.inner).packet())[2] == {"passed_on"}
