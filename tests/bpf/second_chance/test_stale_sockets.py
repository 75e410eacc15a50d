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
COUNT = 50
SEQUENCE_SECONDS = 2 * 2**24 * 64e-9
"""In which initial sequence numbers of the same addresses and ports move out of the window that is believed.
The nodes of the bed have one kernel, so theirs are near each other; those of real nodes are not."""


@pytest.fixture(scope="module")
def port_ranges() -> Iterator[range]:
    """Ports that no other test has left sockets of, for each test."""
    return (range(first, first + COUNT) for first in range(20_000, 30_000, COUNT))


@pytest.fixture
def ports(port_ranges: Iterator[range]) -> range:
    """Of the test."""
    return next(port_ranges)


@contextmanager
def connections(site: Site, public: Address, ports: range) -> Iterator[list[socket]]:
    """From all the ports, each after a request."""
    with ExitStack() as stack:
        opened = []
        for port in ports:
            made, _ = bound(site.bed, public, port)
            stack.enter_context(made)
            made.settimeout(5)
            made.connect((str(public), PUBLIC_HTTP))
            ask(made)
            opened.append(made)
        yield opened


def leave_stale(site: Site, ports: range, nodes: list[int], *publics: Address) -> None:
    """Sockets of all the ports at each of these nodes, of connections whose client is gone."""
    for index in nodes:
        site.steering.to((ALL, index))
        for public in publics:
            with connections(site, public, ports) as opened:
                for each in opened:
                    vanish(each)
        time.sleep(SEQUENCE_SECONDS)


def test_new_connections_of_either_family_go_on_beside_stale_ones(site: Site, ports: range) -> None:
    owner, *others = reversed(range(NODES))
    leave_stale(site, ports, others, PUBLIC, PUBLIC6)
    site.steering.to((SYN, owner), (ALL, EACH_TO_THE_NEXT))
    for public in (PUBLIC, PUBLIC6):
        with connections(site, public, ports) as opened:
            for _ in range(NODES):
                for each in opened:
                    ask(each)
    for index in others:
        states = [site.bed.nodes[index].states(port) for port in ports]
        assert states == [["ESTAB"] * 2] * len(ports), (
            f"node {index}: the stale connections are part of the test"
        )


@pytest.mark.parametrize("coming_in", [0, 2], ids=["at a stale socket", "elsewhere"])
def test_a_connection_of_a_lost_node_is_reset_beside_stale_ones(
    site: Site, ports: range, coming_in: int
) -> None:
    """The socket of another connection would answer with its own numbers, which tells the client nothing."""
    leave_stale(site, ports, [0, 1], PUBLIC)
    site.steering.to((ALL, 3))
    with connections(site, PUBLIC, ports) as opened:
        site.steering.cut(3)
        site.bed.link(range(NODES), lost=[3])
        site.steering.to((ALL, coming_in))
        for each in opened:
            with pytest.raises(ConnectionResetError):
                ask(each)


def test_a_client_that_comes_again_at_the_node_of_its_stale_connection_is_served(
    site: Site, ports: range
) -> None:
    site.steering.to((ALL, 0))
    with connections(site, PUBLIC, ports) as opened:
        for each in opened[:1]:
            vanish(each)
    again, _ = bound(site.bed, PUBLIC, ports[0])
    with again:
        again.settimeout(5)
        again.connect((str(PUBLIC), PUBLIC_HTTP))
        site.steering.to((ALL, EACH_TO_THE_NEXT))
        ask(again)
