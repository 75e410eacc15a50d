# SPDX-License-Identifier: Apache-2.0
"""400 connections through real Envoys while the router's next hops and the siblings change: none breaks."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from bed import PUBLIC, PUBLIC6, Bed
from churn import PAUSE, churn
from client import ask, connect
from path_network import Address
from phases import CONNECTIONS, SECONDS, none_slow, under_load
from steering import Site

pytestmark = pytest.mark.root


def change_next_hops(bed: Bed) -> None:
    churn(bed, SECONDS, seed=1)


def turn_off(bed: Bed) -> None:
    bed.unlink()
    bed.route([0, 1])


@pytest.mark.parametrize("public", [PUBLIC, PUBLIC6], ids=["IPv4", "IPv6"])
def test_random_next_hops_break_nothing(site: Site, public: Address) -> None:
    changing, off = under_load(site, public, change_next_hops, turn_off)
    assert changing.broken == []
    assert none_slow(changing)
    assert changing.requests > CONNECTIONS * SECONDS
    assert len(off.broken) > CONNECTIONS / 8, "without second chance the bed breaks connections"


def join_second(bed: Bed) -> None:
    """The others know the newcomer, then it knows them, then it is announced."""
    bed.link([0, 1])
    bed.route([0, 1])


def join_third(bed: Bed) -> None:
    bed.link([0, 1, 2])
    bed.route([0, 1, 2])


def lead_all_elsewhere(bed: Bed) -> None:
    """All flows are led to one node, to two, to another one, to a third."""
    for hops in ([0], [0, 1], [1], [2]):
        bed.route(hops)
        time.sleep(PAUSE)


def drain_third(bed: Bed) -> None:
    bed.link([0, 1, 2], draining=[2])
    bed.route([0, 1])


def join_fourth(bed: Bed) -> None:
    """Besides, the third one serves again."""
    bed.link([0, 1, 2, 3])
    bed.route([0, 1, 2, 3])


def drain_first(bed: Bed) -> None:
    """It is withdrawn, keeps its connections and stays in the lists."""
    bed.route([1, 2, 3])
    bed.link([0, 1, 2, 3], draining=[0])


def drain_second_while_next_hops_change(bed: Bed) -> None:
    bed.link([0, 1, 2, 3], draining=[0, 1])
    churn(bed, 4 * PAUSE, seed=2, among=[2, 3])


def come_back_with_new_keys_while_next_hops_change(bed: Bed) -> None:
    """The first one is a newcomer again, and the keys are rotated."""
    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(churn, bed, 6 * PAUSE, 3, [1, 2, 3])
        for _ in range(3):
            rotate_keys(bed, [1, 2, 3, 0])
            time.sleep(PAUSE)
        changing.result()


def rotate_keys(bed: Bed, members: list[int]) -> None:
    """In the steps of the control plane, each applied by one node after the other."""
    before, after = bed.active, 1 - bed.active
    keys = list(bed.keys)
    keys[after] = secrets.token_bytes(16)
    for signing, known in ((before, (before, after)), (after, (before, after)), (after, (after,))):
        bed.keys = tuple(key if slot in known else None for slot, key in enumerate(keys))  # type: ignore[assignment]
        bed.active = signing
        bed.link(members)


@pytest.mark.parametrize("public", [PUBLIC, PUBLIC6], ids=["IPv4", "IPv6"])
def test_joins_drains_and_rotated_keys_break_nothing(site: Site, public: Address) -> None:
    site.bed.unlink()
    site.bed.link([0])
    site.bed.route([0])
    phases = (
        join_second,
        join_third,
        lead_all_elsewhere,
        drain_third,
        join_fourth,
        drain_first,
        drain_second_while_next_hops_change,
        come_back_with_new_keys_while_next_hops_change,
    )
    with connect(site.bed, public) as idle:
        ask(idle)
        for phase, seen in zip(phases, under_load(site, public, *phases), strict=True):
            assert seen.broken == [], phase.__name__
        # It said nothing meanwhile.
        ask(idle)
