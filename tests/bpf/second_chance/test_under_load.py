# SPDX-License-Identifier: Apache-2.0
"""400 connections through real Envoys while the router's next hops and the siblings change: none breaks."""

from __future__ import annotations

import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from bed import PUBLIC, PUBLIC6, Bed
from churn import PAUSE, churn
from path_network import Address
from phases import CONNECTIONS, under_load
from steering import Site

pytestmark = pytest.mark.root
SECONDS = float(os.environ.get("EPIC_CHURN_SECONDS", "5"))
LONG = 60.0


def change_next_hops(bed: Bed) -> None:
    churn(bed, SECONDS, seed=1)


def turn_off(bed: Bed) -> None:
    bed.unlink()
    bed.route([0, 1])


@pytest.mark.parametrize("public", [PUBLIC, PUBLIC6], ids=["IPv4", "IPv6"])
def test_random_next_hops_break_nothing(site: Site, public: Address) -> None:
    changing, off = under_load(site, public, change_next_hops, turn_off)
    assert changing.broken == []
    # What shares the machine with a short run may hold requests up; a long one wants it for itself.
    assert SECONDS < LONG or changing.slow == 0
    assert changing.requests > CONNECTIONS * SECONDS
    assert len(off.broken) > CONNECTIONS / 8, "without second chance the bed breaks connections"


def join_third(bed: Bed) -> None:
    """The others know the newcomer, then it knows them, then it is announced."""
    for index in (0, 1, 2):
        bed.link_one(index, [0, 1, 2])
    bed.route([0, 1, 2])


def join_fourth(bed: Bed) -> None:
    for index in (0, 1, 2, 3):
        bed.link_one(index, [0, 1, 2, 3])
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


def test_joins_drains_and_rotated_keys_break_nothing(site: Site) -> None:
    site.bed.unlink()
    site.bed.link([0, 1])
    site.bed.route([0, 1])
    phases = (
        join_third,
        join_fourth,
        drain_first,
        drain_second_while_next_hops_change,
        come_back_with_new_keys_while_next_hops_change,
    )
    for phase, seen in zip(phases, under_load(site, PUBLIC, *phases), strict=True):
        assert seen.broken == [], phase.__name__
