# SPDX-License-Identifier: Apache-2.0
"""Netlink messages as bytes, and what of them concerns the agent."""

from __future__ import annotations

import socket
import struct

import pytest

from epic.agent.netlink import nftables
from epic.agent.netlink import rtnetlink as rt
from epic.agent.netlink.monitor import Changes, Pending


def message(kind: int, body: bytes, sender: int = 9) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, sender) + body + bytes(-len(body) % 4)


def route(protocol: int) -> bytes:
    return rt.ROUTE.pack(socket.AF_INET, 32, 0, 0, 254, protocol, 0, 1, 0)


def heard(*messages: bytes) -> Changes:
    changes = Changes()
    changes.note((found for _, found in rt.messages(b"".join(messages))), own=[9])
    return changes


def test_attributes_are_padded_and_read_again() -> None:
    packed = rt.attribute(3, b"up0\0x") + rt.attribute(4, b"\x01\x02")
    assert len(packed) == 20
    assert rt.attributes(b"head" + packed, 4) == {3: b"up0\0x", 4: b"\x01\x02"}


def test_broken_messages_end_the_reading() -> None:
    assert rt.attributes(b"\0\0\0\0", 0) == {}
    assert list(rt.messages(bytes(16))) == []


def test_links_are_told_by_index() -> None:
    body = rt.LINK.pack(0, 1, 12, 0, 0)
    assert heard(message(rt.NEWLINK, body), message(rt.DELLINK, body)) == Changes(links={12})


def test_others_routes_count_and_ours_when_others_remove_them() -> None:
    assert heard(message(rt.NEWROUTE, route(3))) == Changes(routes={0})
    assert not heard(message(rt.NEWROUTE, route(50)))
    assert not heard(message(rt.DELROUTE, route(50)))
    assert heard(message(rt.DELROUTE, route(50), sender=10)) == Changes(ours=True)


def test_removed_filters_and_rules_count() -> None:
    body = rt.FILTER.pack(0, 12, 0, 0, 0)
    assert heard(message(rt.DELTFILTER, body), message(rt.DELQDISC, body)) == Changes(filters={12})
    assert heard(message(rt.DELRULE, route(0))) == Changes(rules=True)


def nft(kind: int, *names: str, family: int = 1) -> rt.Message:
    body = bytes([family, 0, 0, 0]) + b"".join(
        rt.attribute(number, name.encode() + b"\0") for number, name in enumerate(names, 1)
    )
    return rt.Message(10 << 8 | kind, 5, body)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(nft(2, "epic"), "rules", id="table deleted"),
        pytest.param(nft(8, "epic", "input"), "rules", id="rule deleted"),
        pytest.param(nft(6, "epic", "input"), "rules", id="rule added"),
        pytest.param(nft(14, "epic", "gateway_ports"), "elements", id="port closed"),
        pytest.param(nft(14, "epic", "udp_clients"), None, id="element of another set"),
        pytest.param(nft(12, "epic", "gateway_ports"), None, id="port opened"),
        pytest.param(nft(2, "filter"), None, id="another table"),
        pytest.param(nft(2, "epic", family=2), None, id="another family"),
        pytest.param(rt.Message(2, 5, b""), None, id="no message of nft"),
    ],
)
def test_what_is_taken_from_the_firewall_is_heard_of(
    found: rt.Message, expected: nftables.Change | None
) -> None:
    assert nftables.change(found, "epic", "gateway_ports") == expected


def test_changes_are_taken_once_and_at_first_all_may_have_changed() -> None:
    pending = Pending()
    assert pending.take() == Changes(lost=True)
    pending.add(Changes(links={1}))
    pending.add(Changes(links={2}, addresses={3}))
    assert pending.take() == Changes(links={1, 2}, addresses={3})
    assert not pending.take()
