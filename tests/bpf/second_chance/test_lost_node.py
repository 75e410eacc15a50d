# SPDX-License-Identifier: Apache-2.0
"""A node or an Envoy that dies takes its own connections with it, and no others."""

from __future__ import annotations

import time

import pytest
from bed import PUBLIC, Bed
from loading import Seen
from phases import CONNECTIONS, under_load
from steering import Site

pytestmark = pytest.mark.root
NOTICED_AFTER = 0.7


def kept(seen: Seen) -> list[str]:
    """Why connections broke that were to stay."""
    return [each["why"] for each in seen.broken if each["kind"] != "short"]


def test_a_lost_node_takes_its_own_connections_only_and_they_end_at_once(site: Site) -> None:
    def lose_fourth(bed: Bed) -> None:
        """Its link is cut; the router and the others notice at the same time."""
        site.steering.cut(3)
        bed.route([0, 1, 2])
        bed.link([0, 1, 2, 3], lost=[3])

    (seen,) = under_load(site, PUBLIC, lose_fourth)
    assert CONNECTIONS / 8 < len(kept(seen)) < CONNECTIONS / 2
    assert [each for each in seen.broken if "Hung" in each["why"]] == []


def test_connections_of_a_lost_node_are_reset_once_its_siblings_notice_too(site: Site) -> None:
    had = []

    def lose_fourth(bed: Bed) -> None:
        """The router notices, and the agents as late as they may; what is passed on meanwhile is lost."""
        site.steering.cut(3)
        bed.route([0, 1, 2])
        had.append(len(bed.nodes[3].connections()))
        time.sleep(NOTICED_AFTER)
        bed.link([0, 1, 2, 3], lost=[3])

    (seen,) = under_load(site, PUBLIC, lose_fourth)
    assert CONNECTIONS / 8 < len(kept(seen)) <= had[0]
    assert [each for each in seen.broken if "Hung" in each["why"]] == []


def test_an_envoy_that_dies_while_another_drains_takes_its_own_connections_only(site: Site) -> None:
    had = []

    def drain_fourth(bed: Bed) -> None:
        bed.link([0, 1, 2, 3], draining=[3])
        bed.route([0, 1, 2])

    def kill_second(bed: Bed) -> None:
        """Its announcement goes, and it is started again."""
        bed.route([0, 2])
        had.append(len(bed.nodes[1].connections()))
        site.serving.kill_envoy(bed.nodes[1])
        site.serving.start_envoy(bed.nodes[1])
        site.serving.wait_for_envoy(bed.nodes[1])

    def come_back(bed: Bed) -> None:
        bed.route([0, 1, 2])

    drained, killed, back = under_load(site, PUBLIC, drain_fourth, kill_second, come_back)
    assert (drained.broken, back.broken) == ([], [])
    assert CONNECTIONS / 8 < len(kept(killed)) <= had[0]
