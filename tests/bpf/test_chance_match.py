# SPDX-License-Identifier: Apache-2.0
"""Second chance: whether a packet is of the connection whose socket is here."""

from __future__ import annotations

import pytest
from chance_bed import FAR, WINDOW, Bed, ends, error_about
from chance_sockets import BOTH_FAMILIES_PORT, PORT
from frames import ETHER, FAMILIES, INNER, Families
from oracle_chance import NOT_OURS, REDIRECTED

pytestmark = pytest.mark.root


@FAMILIES
@pytest.mark.parametrize(("sequence", "acknowledged"), [(FAR, 0), (0, FAR), (-FAR, 0), (0, -FAR)])
def test_a_socket_of_another_connection_swallows_nothing(
    bed: Bed, families: Families, sequence: int, acknowledged: int
) -> None:
    moved = bed.open(families.inner).moved(sequence, acknowledged)
    assert ends(bed, ETHER / moved.packet()) == (REDIRECTED, "", {"stale", "passed_on"})


@INNER
@pytest.mark.parametrize("distance", [-(1 << 23), 1 << 23])
def test_numbers_near_the_sockets_are_its_own(bed: Bed, families: Families, distance: int) -> None:
    opened = bed.open(families.inner)
    assert ends(bed, ETHER / opened.moved(distance, distance).packet())[2] == {"hits"}


@INNER
def test_numbers_are_near_all_that_may_come_or_be_acknowledged(bed: Bed, families: Families) -> None:
    """Up to the end of the window, and from the first byte that is not acknowledged on."""
    opened, reach, sent = bed.open(families.inner), 1 << 24, 2800
    bed.send(opened, sent)
    within = (0, sent - 100 - reach, 100 - reach, sent + reach - 100)
    for acknowledged in within:
        assert ends(bed, ETHER / opened.moved(0, acknowledged).packet())[2] == {"hits"}
        about = (opened.acknowledged + acknowledged) % (1 << 32)
        assert ends(bed, ETHER / error_about(opened, about))[2] == {"hits"}
    for acknowledged in (-reach - 100, sent + reach + 100):
        assert ends(bed, ETHER / opened.moved(0, acknowledged).packet())[2] == {"stale", "passed_on"}
    assert ends(bed, ETHER / opened.moved(reach + 20_000).packet())[2] == {"hits"}
    for sequence in (-reach - 100, reach + WINDOW + 100):
        assert ends(bed, ETHER / opened.moved(sequence).packet())[2] == {"stale", "passed_on"}


@INNER
def test_a_listener_for_both_families_has_connections_of_either(bed: Bed, families: Families) -> None:
    opened = bed.open(families.inner, BOTH_FAMILIES_PORT)
    assert ends(bed, ETHER / opened.packet())[2] == {"hits"}
    assert ends(bed, ETHER / opened.moved(FAR, FAR).packet())[2] == {"stale", "passed_on"}
    assert ends(bed, ETHER / error_about(opened))[2] == {"hits"}


@INNER
def test_a_connection_half_closed_goes_on(bed: Bed, families: Families) -> None:
    closed, kept = bed.instance.half_close(*bed.ends_of(families.inner))
    bed.know(closed)
    with kept:
        assert ends(bed, ETHER / closed.packet())[2] == {"hits"}


@INNER
def test_a_connection_in_time_wait_is_found(bed: Bed, families: Families) -> None:
    waiting = bed.instance.wait_in_time_wait(*bed.ends_of(families.inner))
    bed.know(waiting)
    assert ends(bed, ETHER / waiting.packet())[2] == {"hits"}
    assert ends(bed, ETHER / waiting.moved(FAR).packet())[2] == {"stale", "passed_on"}
    assert ends(bed, ETHER / waiting.moved(0, FAR).packet())[2] == {"stale", "passed_on"}


@INNER
def test_of_two_that_have_answered_a_syn_the_one_that_is_meant_is_found(bed: Bed, families: Families) -> None:
    begun = bed.instance.begin(*bed.ends_of(families.inner))
    ran = bed.run(ETHER / begun.packet())
    assert (ran.verdict, bed.counted()["hits"]) == (NOT_OURS, 1)
    assert bed.run(ETHER / begun.packet("R")).verdict == NOT_OURS
    assert bed.run(ETHER / begun.moved(0, 1).packet()).verdict == REDIRECTED
    assert bed.run(ETHER / begun.moved(FAR).packet("R")).verdict == REDIRECTED
    assert bed.run(ETHER / error_about(begun, begun.acknowledged - 1)).verdict == NOT_OURS
    assert bed.run(ETHER / error_about(begun, begun.acknowledged + 1)).verdict == REDIRECTED


@INNER
@pytest.mark.parametrize("port", [PORT, BOTH_FAMILIES_PORT], ids=["one family", "both families"])
def test_a_cookie_leads_to_who_gave_it(bed: Bed, families: Families, port: int) -> None:
    bed.instance.give_cookies(always=True)
    try:
        begun = bed.instance.begin(*bed.ends_of(families.inner), port)
        assert bed.run(ETHER / begun.packet()).verdict == NOT_OURS
        assert bed.run(ETHER / begun.moved(0, 1 << 30).packet()).verdict == REDIRECTED
        assert bed.run(ETHER / error_about(begun)).verdict == REDIRECTED
    finally:
        bed.instance.give_cookies(always=False)


@FAMILIES
def test_an_error_goes_to_whose_packet_it_is_about(bed: Bed, families: Families) -> None:
    opened = bed.open(families.inner)
    assert ends(bed, ETHER / error_about(opened)) == (NOT_OURS, "", {"hits"})
    far = (opened.acknowledged + FAR) % (1 << 32)
    assert ends(bed, ETHER / error_about(opened, far)) == (REDIRECTED, "", {"stale", "passed_on"})
    stranger = bed.another(families.inner)
    assert ends(bed, ETHER / error_about(stranger)) == (REDIRECTED, "", {"passed_on"})


@INNER
def test_an_error_about_something_else_is_left_alone(bed: Bed, families: Families) -> None:
    opened = bed.open(families.inner)
    foreign = bytes(ETHER / error_about(opened)).replace(
        opened.public.packed + opened.client.packed, opened.client.packed * 2
    )
    assert ends(bed, foreign) == (NOT_OURS, "", set())
    assert ends(bed, bytes(ETHER / error_about(opened))[:-14]) == (NOT_OURS, "", set())
