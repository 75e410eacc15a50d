# SPDX-License-Identifier: Apache-2.0
"""Instances that offer more than fits the way to a sibling: the client is told how much does."""

from __future__ import annotations

import pytest
from bed import CLIENT, CLIENT6, PUBLIC, PUBLIC6, Plan
from client import ask, connect
from path_network import Address
from steering import ALL, SYN, Site

pytestmark = [
    pytest.mark.root,
    pytest.mark.parametrize("made_site", [Plan(4, instance_mtu=1500)], ids=["1500 bytes"], indirect=True),
]
SIZE, OVERHEAD = 3_000_000, 44


@pytest.mark.parametrize(("public", "client"), [(PUBLIC, CLIENT), (PUBLIC6, CLIENT6)], ids=["IPv4", "IPv6"])
def test_an_upload_by_another_node_ends(site: Site, public: Address, client: Address) -> None:
    site.steering.to((SYN, 0), (ALL, 1))
    with connect(site.bed, public) as opened:
        ask(opened, SIZE)
    learned = site.bed.client.run(f"ip route get {public} from {client}")
    assert f"mtu {1500 - OVERHEAD}" in learned
