# SPDX-License-Identifier: Apache-2.0
"""A node that dies takes its own connections with it, and no others."""

from __future__ import annotations

import pytest
from bed import PUBLIC, Bed
from phases import CONNECTIONS, under_load
from steering import Site

pytestmark = pytest.mark.root


def test_a_lost_node_takes_its_own_connections_only_and_they_end_at_once(site: Site) -> None:
    def lose_fourth(bed: Bed) -> None:
        """Its link is cut; the router and the others notice at the same time."""
        site.steering.cut(3)
        bed.route([0, 1, 2])
        bed.link([0, 1, 2, 3], lost=[3])

    (seen,) = under_load(site, PUBLIC, lose_fourth)
    kept = [each for each in seen.broken if each["kind"] != "short"]
    assert CONNECTIONS / 8 < len(kept) < CONNECTIONS / 2
    assert [each for each in seen.broken if "Hung" in each["why"]] == []
