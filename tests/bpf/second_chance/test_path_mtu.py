# SPDX-License-Identifier: Apache-2.0
"""A client behind a link with a smaller MTU: errors reach who sent too much, whatever node they come to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from backend import DOWNLOADS
from bed import CLIENT, CLIENT6, PUBLIC, PUBLIC6, Plan
from client import connect, read_all
from path_network import Address
from steering import ALL, EACH_TO_THE_NEXT, ICMP, SYN, Site

OVER4, OVER4_SMALLER, OVER6 = Plan(4, client_mtu=1400), Plan(4, client_mtu=1280), Plan(6, client_mtu=1280)
pytestmark = [
    pytest.mark.root,
    pytest.mark.parametrize(
        ("made_site", "public", "client"),
        [(OVER4, PUBLIC, CLIENT), (OVER4_SMALLER, PUBLIC6, CLIENT6), (OVER6, PUBLIC6, CLIENT6)],
        ids=["IPv4", "IPv6", "IPv6 over IPv6"],
        indirect=["made_site"],
        scope="module",
    ),
]
SIZE = 3_000_000


@pytest.fixture(autouse=True)
def unknown_paths(site: Site) -> Iterator[None]:
    """No instance has learned of the small link."""
    for node in site.bed.nodes:
        for family in ("-4", "-6"):
            node.instance.run(f"ip {family} route flush cache")
    yield


@pytest.mark.parametrize("rest", [0, EACH_TO_THE_NEXT], ids=["owner", "each to the next"])
@pytest.mark.parametrize("errors", [0, 3, EACH_TO_THE_NEXT], ids=["owner", "another", "any"])
def test_a_download_ends(site: Site, public: Address, client: Address, errors: int, rest: int) -> None:
    site.steering.to((SYN, 0), (ICMP, errors), (ALL, rest))
    with connect(site.bed, public, DOWNLOADS) as opened:
        opened.sendall(b"%d\n" % SIZE)
        assert read_all(opened) == SIZE
    learned = site.bed.nodes[0].instance.run(f"ip route get {client} from {public}")
    assert f"mtu {site.bed.plan.client_mtu}" in learned
