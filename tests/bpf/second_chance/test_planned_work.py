# SPDX-License-Identifier: Apache-2.0
"""Instances are drained, get another Envoy and move while next hops change: no connection breaks."""

from __future__ import annotations

import time
from itertools import count

import pytest
from bed import PUBLIC, PUBLIC6
from churn import NextHops
from lives import Lives
from path_network import Address
from phases import CONNECTIONS, LONG, SECONDS, SETTLED, load_of, none_slow
from steering import Site
from waits import Waits

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(0),
]
MEMBERS, SPARE = (0, 1, 2), 3
UPGRADES = len(MEMBERS) if SECONDS >= LONG else 1
"""At least."""


def upgrade_all(lives: Lives) -> None:
    """One after the other; each at least once, if there is time for it."""
    end = time.monotonic() + SECONDS
    for number in count():
        if number >= UPGRADES and time.monotonic() > end:
            print(f"{number} upgrades")
            return
        lives.upgrade(MEMBERS[number % len(MEMBERS)])


def move(lives: Lives) -> None:
    """From the first node to the spare one, which serves before."""
    lives.place(SPARE)
    lives.remove(MEMBERS[0])


def come_back(lives: Lives) -> None:
    lives.place(MEMBERS[0])
    time.sleep(SETTLED)


@pytest.mark.parametrize("public", [PUBLIC, PUBLIC6], ids=["IPv4", "IPv6"])
def test_planned_work_while_next_hops_change_breaks_nothing(site: Site, public: Address) -> None:
    site.bed.unlink()
    site.bed.link(MEMBERS)
    site.bed.route(MEMBERS)
    phases = (upgrade_all, move, come_back)
    with (
        Waits(site.serving.processes) as waits,
        load_of(site, public, waits) as load,
        NextHops(site.bed, MEMBERS, seed=4) as hops,
    ):
        lives = Lives(site, load, hops, MEMBERS)
        for phase in phases:
            load.phase(phase.__name__)
            phase(lives)
        load.end()
    for phase in phases:
        seen = load.seen(phase.__name__)
        print(f"{phase.__name__}: {seen.text}")
        assert seen.broken == []
        assert none_slow(seen)
        assert seen.requests > CONNECTIONS
