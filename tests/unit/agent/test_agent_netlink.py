"""Netlink messages as bytes, and what of them concerns the agent."""

from __future__ import annotations

import socket
import struct

from epic.agent.netlink import rtnetlink as rt
from epic.agent.netlink.monitor import Changes, Pending


def message(kind: int, body: bytes, sender: int = 9) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, sender) + body + bytes(-len(body) % 4)


def route(protocol: int) -> bytes:
    return rt.ROUTE.pack(socket.AF_INET, 32, 0, 0, 254, protocol, 0, 1, 0)


def heard(*messages: bytes) -> Changes:
    changes = Changes()
    changes.note((found for _, found in rt.messages(b"".join(messages))), own=9)
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
    assert heard(message(rt.NEWROUTE, route(3))) == Changes(routes=True)
    assert not heard(message(rt.NEWROUTE, route(50)))
    assert not heard(message(rt.DELROUTE, route(50)))
    assert heard(message(rt.DELROUTE, route(50), sender=10)) == Changes(ours=True)


def test_changes_are_taken_once_and_at_first_all_may_have_changed() -> None:
    pending = Pending()
    assert pending.take() == Changes(lost=True)
    pending.add(Changes(links={1}))
    pending.add(Changes(links={2}, addresses=True))
    assert pending.take() == Changes(links={1, 2}, addresses=True)
    assert not pending.take()
