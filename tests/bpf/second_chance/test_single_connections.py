# SPDX-License-Identifier: Apache-2.0
"""One connection whose packets the router leads to nodes that do not know it, case by case."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from backend import DOWNLOADS
from bed import NODES, PUBLIC, PUBLIC6, Plan
from client import ANSWER, REQUEST, ask, connect, port_of, read_all
from namespaces import eventually
from path_network import Address
from steering import ALL, EACH_TO_THE_NEXT, FIN, NOT_SYN, RST, SYN, Site

pytestmark = [
    pytest.mark.root,
    pytest.mark.parametrize("made_site", [Plan(4), Plan(6)], ids=["over IPv4", "over IPv6"], indirect=True),
    pytest.mark.parametrize("public", [PUBLIC, PUBLIC6], ids=["IPv4", "IPv6"]),
]
SIZE = 3_000_000
UNUSED_PORT = 11_000
"""Of the client's: around it are ports of which no node has learned whose they are."""


@pytest.fixture(autouse=True)
def no_reset(site: Site) -> Iterator[None]:
    """Whatever a test does, the gateway resets nothing."""
    before = site.steering.resets
    yield
    assert site.steering.resets == before


def forgotten(site: Site, client_port: int) -> bool:
    """Whether no instance has the connection any more, soon."""
    return eventually(lambda: not any(node.states(client_port) for node in site.bed.nodes))


def abort(opened: socket.socket) -> None:
    """Its end is a reset."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    opened.close()


def test_requests_by_another_node_are_answered(site: Site, public: Address) -> None:
    site.steering.to((ALL, 0))
    with connect(site.bed, public) as opened:
        for index in (1, 2, 3, 0):
            site.steering.to((ALL, index))
            ask(opened)


def test_replies_go_straight_to_the_client(site: Site, public: Address) -> None:
    site.steering.to((SYN, 2), (NOT_SYN, 1))
    before = [site.steering.sent_by(index) for index in range(NODES)]
    with connect(site.bed, public, DOWNLOADS) as opened:
        opened.sendall(b"%d\n" % SIZE)
        assert read_all(opened) == SIZE
    sent = [site.steering.sent_by(index) - before[index] for index in range(NODES)]
    assert [index for index in range(NODES) if sent[index]] == [2]


def test_the_chain_is_gone_along_once_for_each_flow_and_not_for_each_packet(
    site: Site, public: Address
) -> None:
    flows, requests, last = 10, 20, NODES - 1
    site.steering.to((ALL, last))
    with ExitStack() as stack:
        opened = [
            stack.enter_context(connect(site.bed, public, client_port=port))
            for port in range(UNUSED_PORT, UNUSED_PORT + flows)
        ]
        site.steering.to((SYN, last), (NOT_SYN, 0))
        before = {name: site.bed.counted(name) for name in ("passed_on", "learned", "to_owner")}
        for each in opened * requests:
            ask(each)
        counted = {name: site.bed.counted(name) - before[name] for name in before}
    # The next packet may come before the answer about the first one.
    assert flows <= counted["passed_on"] < 2 * flows
    assert flows <= counted["learned"] <= counted["passed_on"]
    assert counted["to_owner"] >= flows * (requests - 2)


def test_a_former_owner_that_comes_back_is_not_asked_before_it_has_the_list(
    site: Site, public: Address
) -> None:
    """What was learned of its earlier life would lead all packets to a node that drops them."""
    left, coming_in, owner = 0, 1, 2
    site.steering.to((SYN, left), (ALL, coming_in))
    with connect(site.bed, public, client_port=UNUSED_PORT - 2) as opened:
        ask(opened)
        ask(opened)
        abort(opened)
    assert forgotten(site, UNUSED_PORT - 2)
    others = [index for index in range(NODES) if index != left]
    site.bed.link(range(NODES), leaving=[left])
    site.bed.link(others)
    site.bed.unlink_some([left])
    site.steering.to((ALL, owner))
    with connect(site.bed, public, client_port=UNUSED_PORT - 2) as opened:
        ask(opened)
        site.bed.link([*others, left], late=[left])
        site.steering.to((ALL, coming_in))
        before = site.bed.nodes[left].plane.drop_counters()
        ask(opened)
        assert site.bed.nodes[left].plane.drop_counters() == before
        site.bed.link([*others, left])
        ask(opened)


def test_a_connection_that_is_moved_in_a_flood_waits_and_has_another_chance(
    site: Site, public: Address
) -> None:
    """Siblings are asked about no more flows, for so many are asked about; a reset would end it."""
    site.steering.to((SYN, 0), (NOT_SYN, 1))
    with connect(site.bed, public) as known:
        ask(known)
        site.steering.to((ALL, 0))
        with connect(site.bed, public, client_port=UNUSED_PORT - 1) as unknown:
            ask(unknown)
            site.steering.to((SYN, 0), (NOT_SYN, 1))
            before = site.bed.counted("over_budget")
            site.bed.nodes[1].spend_budget(public, 1 << 62)
            try:
                unknown.sendall(REQUEST % 0)
                ask(known)
                assert eventually(lambda: site.bed.counted("over_budget") > before)
            finally:
                site.bed.nodes[1].spend_budget(public, 0)
            assert unknown.recv(65536).startswith(ANSWER)


@pytest.mark.parametrize("size", [1, SIZE])
def test_each_packet_of_an_upload_may_come_by_another_node(site: Site, public: Address, size: int) -> None:
    site.steering.to((SYN, 0), (ALL, EACH_TO_THE_NEXT))
    with connect(site.bed, public) as opened:
        ask(opened, size)
        ask(opened)


@pytest.fixture
def cut_by_kernel(site: Site) -> Iterator[None]:
    """Interfaces that cannot cut what is encapsulated: the kernel does, and copies one header to all."""
    for node in site.bed.nodes:
        node.space.run("ethtool -K up0 tx-udp_tnl-segmentation off")
    yield
    for node in site.bed.nodes:
        node.space.run("ethtool -K up0 tx-udp_tnl-segmentation on")


@pytest.fixture
def merged_by_kernel(site: Site) -> Iterator[None]:
    """A client that cuts all it sends itself; each node merges what comes in."""
    site.bed.client.run("ethtool -K eth0 tso off gso off")
    for node in site.bed.nodes:
        # A veth pair leaves merging to who sends, as long as that one says that it can send whole.
        site.bed.router.run(f"ethtool -K n{node.index} tso off")
        node.space.run("ethtool -K up0 gro on")
    yield
    for node in site.bed.nodes:
        node.space.run("ethtool -K up0 gro off")
        site.bed.router.run(f"ethtool -K n{node.index} tso on")
    site.bed.client.run("ethtool -K eth0 tso on gso on")


@pytest.mark.parametrize("offloads", ["cut_by_kernel", "merged_by_kernel"])
def test_what_is_cut_or_merged_on_its_way_is_believed(
    site: Site, public: Address, offloads: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(offloads)
    site.steering.to((SYN, 3), (NOT_SYN, 1))
    dropped, (packets, segments) = [node.plane.drop_counters() for node in site.bed.nodes], passed_on(site, 1)
    with connect(site.bed, public) as opened:
        ask(opened, SIZE)
    assert [node.plane.drop_counters() for node in site.bed.nodes] == dropped
    packets, segments = passed_on(site, 1)[0] - packets, passed_on(site, 1)[1] - segments
    assert segments > SIZE / 1500
    assert (packets < segments / 2) == (offloads == "merged_by_kernel")


def passed_on(site: Site, index: int) -> tuple[int, int]:
    """How many packets left the node by its underlay, and how many segments all nodes passed on."""
    return site.bed.nodes[index].sent, site.bed.counted("passed_on") + site.bed.counted("to_owner")


def test_a_download_goes_on_when_its_acknowledgements_come_by_another_node(
    site: Site, public: Address
) -> None:
    site.steering.to((SYN, 3), (ALL, EACH_TO_THE_NEXT))
    with connect(site.bed, public, DOWNLOADS) as opened:
        opened.sendall(b"%d\n" % SIZE)
        assert read_all(opened) == SIZE


def test_a_client_that_closed_its_side_gets_the_rest(site: Site, public: Address) -> None:
    site.steering.to((SYN, 2), (ALL, 1))
    with connect(site.bed, public, DOWNLOADS) as opened:
        opened.sendall(b"%d\n" % SIZE)
        opened.shutdown(socket.SHUT_WR)
        assert read_all(opened) == SIZE


def test_a_close_by_another_node_ends_it_at_its_owner(site: Site, public: Address) -> None:
    site.steering.to((SYN, 0), (FIN, 1), (ALL, 0))
    with connect(site.bed, public) as opened:
        port = port_of(opened)
        ask(opened)
        assert site.bed.owner(port) == 0
    assert forgotten(site, port)


def test_a_reset_by_another_node_ends_it_at_its_owner(site: Site, public: Address) -> None:
    site.steering.to((SYN, 0), (RST, 1), (ALL, 0))
    with connect(site.bed, public) as opened:
        port = port_of(opened)
        ask(opened)
        abort(opened)
    assert forgotten(site, port)


@pytest.mark.parametrize("opening", [0, NODES - 1])
def test_a_handshake_may_be_ended_by_another_node(site: Site, public: Address, opening: int) -> None:
    site.steering.to((SYN, opening), (NOT_SYN, (opening + 1) % NODES))
    with connect(site.bed, public) as opened:
        ask(opened)
        assert site.bed.owner(port_of(opened)) == opening


def test_the_answer_of_time_wait_is_the_owners(site: Site, public: Address) -> None:
    """The owner's last acknowledgement is lost, and the client's FIN comes again by another node."""
    site.steering.to((SYN, 0), (NOT_SYN, 1))
    with connect(site.bed, public) as opened:
        port = port_of(opened)
        opened.sendall(b"GET /1 HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
        while opened.recv(65536):
            pass
        assert eventually(lambda: site.bed.nodes[0].states(port) == ["FIN-WAIT-2"])
        site.steering.lose("tcp flags & (fin | rst | ack) == ack")
    assert eventually(lambda: not site.bed.client_states())
    assert site.bed.nodes[0].states(port) == ["TIME-WAIT"]


def test_the_node_that_sent_a_cookie_gets_it(site: Site, public: Address) -> None:
    site.bed.nodes[0].instance.sysctl("ipv4/tcp_syncookies", 2)
    try:
        site.steering.to((SYN, 0), (NOT_SYN, 1))
        with connect(site.bed, public) as opened:
            ask(opened)
            assert site.bed.owner(port_of(opened)) == 0
    finally:
        site.bed.nodes[0].instance.sysctl("ipv4/tcp_syncookies", 1)
