# SPDX-License-Identifier: Apache-2.0
"""Sockets that clients left behind on other nodes take nothing of new connections with the same ports."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from socket import socket

import pytest
from bed import NODES, PUBLIC, PUBLIC6
from client import ask, bound, vanish
from path_network import Address
from serving import PUBLIC_HTTP
from steering import ALL, EACH_TO_THE_NEXT, SYN, Site

pytestmark = pytest.mark.root
PORTS = range(20_000, 20_050)
SEQUENCE_SECONDS = 2 * 2**24 * 64e-9
"""In which initial sequence numbers of the same addresses and ports move out of the window that is believed.
The nodes of the bed have one kernel, so theirs are near each other; those of real nodes are not."""


@contextmanager
def connections(site: Site, public: Address) -> Iterator[list[socket]]:
    """From all the ports, each after a request."""
    with ExitStack() as stack:
        opened = []
        for port in PORTS:
            made, _ = bound(site.bed, public, port)
            stack.enter_context(made)
            made.settimeout(5)
            made.connect((str(public), PUBLIC_HTTP))
            ask(made)
            opened.append(made)
        yield opened


@pytest.mark.parametrize("public", [PUBLIC, PUBLIC6], ids=["IPv4", "IPv6"])
def test_a_new_connection_goes_on_beside_stale_ones(site: Site, public: Address) -> None:
    owner, *others = reversed(range(NODES))
    for index in others:
        site.steering.to((ALL, index))
        with connections(site, public) as opened:
            for each in opened:
                vanish(each)
        time.sleep(SEQUENCE_SECONDS)
    site.steering.to((SYN, owner), (ALL, EACH_TO_THE_NEXT))
    with connections(site, public) as opened:
        for _ in range(NODES):
            for each in opened:
                ask(each)
    for index in others:
        stale = sum("ESTAB" in site.bed.nodes[index].states(port) for port in PORTS)
        assert stale == len(PORTS), f"node {index}: the stale connections are part of the test"


def test_a_client_that_comes_again_at_the_node_of_its_stale_connection_is_served(site: Site) -> None:
    site.steering.to((ALL, 0))
    with connections(site, PUBLIC) as opened:
        for each in opened[:1]:
            vanish(each)
    again, _ = bound(site.bed, PUBLIC, PORTS[0])
    with again:
        again.settimeout(5)
        again.connect((str(PUBLIC), PUBLIC_HTTP))
        site.steering.to((ALL, EACH_TO_THE_NEXT))
        ask(again)
