# SPDX-License-Identifier: Apache-2.0
"""A SYN that comes again by another node: two nodes wait for the rest, and one of them gets it."""

from __future__ import annotations

import pytest
from bed import PUBLIC, PUBLIC6
from client import ask, bound
from namespaces import eventually
from path_network import Address
from serving import PUBLIC_HTTP
from steering import NOT_SYN, SYN, Site

pytestmark = pytest.mark.root
ANSWER = "tcp flags & (syn | ack) == (syn | ack)"
NEVER = 1000


@pytest.mark.parametrize("public", [PUBLIC, PUBLIC6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(("answering", "other"), [(0, 1), (1, 0)])
def test_the_rest_goes_to_the_node_whose_answer_came(
    site: Site, public: Address, answering: int, other: int
) -> None:
    """The SYN is sent to node 0, then to node 1; all else comes in at node 3."""
    site.steering.to((SYN, 0), (NOT_SYN, 3))
    site.steering.lose(ANSWER, times=NEVER)
    opened, port = bound(site.bed, public)
    with opened:
        opened.setblocking(False)
        opened.connect_ex((str(public), PUBLIC_HTTP))
        assert eventually(lambda: site.bed.nodes[0].states(port) == ["SYN-RECV"])
        site.steering.to((SYN, 1), (NOT_SYN, 3))
        assert eventually(lambda: site.bed.nodes[1].states(port) == ["SYN-RECV"])
        site.steering.lose(f"iifname n{other} {ANSWER}", times=NEVER)
        assert eventually(lambda: site.bed.client_states() == ["ESTAB"])
        opened.settimeout(5)
        ask(opened)
        assert site.bed.owner(port) == answering
