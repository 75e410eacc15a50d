# SPDX-License-Identifier: Apache-2.0
"""epic-trace follows packets from sibling to sibling."""

from __future__ import annotations

import pytest
from bed import PUBLIC, PUBLIC6
from client import ask, connect
from path_network import Address
from steering import ALL, NOT_SYN, SYN, Site
from tracing import Tracing

from epic.errors import Unavailable
from epic.trace import kernel

pytestmark = pytest.mark.root
CLIENT_PORT = 10_000
"""Which no other test has used: no node has learned whose it is."""


@pytest.mark.parametrize("public", [PUBLIC, PUBLIC6], ids=["IPv4", "IPv6"])
def test_a_packet_is_followed_to_its_owner(site: Site, public: Address) -> None:
    try:
        kernel.load_bcc()
    except Unavailable as error:
        pytest.skip(str(error))
    nodes = site.bed.nodes
    site.steering.to((ALL, 2))
    with connect(site.bed, public, client_port=CLIENT_PORT) as opened:
        places = [node.space for node in nodes]
        with Tracing([nodes[1].pins], places, "-o", "json", f"--port={CLIENT_PORT}") as tool:
            site.steering.to((SYN, 2), (NOT_SYN, 1))
            ask(opened)
            ask(opened)
    lines = [line for line in tool.lines if line["passage"]]
    steps = [line["step"] for line in lines]
    first = steps[: steps.index("learned")]
    assert first.count("passed on") >= 2, "the first one that is asked is another sibling"
    assert {"found", "underlay receives", "decapsulated", "delivered"} <= set(steps)
    assert {line["source_port"] for line in lines} == {CLIENT_PORT}
    assert "passed on by 1, came in at 1, asked 1" in {line["passage"] for line in lines}
    assert [line for line in tool.lines if line["step"] == "dropped"] == []
    assert "client sends" in {line["step"] for line in tool.lines}
