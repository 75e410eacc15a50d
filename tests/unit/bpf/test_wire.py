# SPDX-License-Identifier: Apache-2.0
"""Control packets and data tags: their bytes, and what is refused."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from epic.bpf.packets import wire
from epic.bpf.packets.siphash import siphash24
from epic.bpf.packets.wire import Control, Flags, Kind, WireError

KEY = bytes(range(16))
HELLO = Control(
    Kind.HELLO, tunnel=7, counter=0x0102030405060708, sent_ns=9, lane=1, lanes=3, flags=Flags.CHECKSUM
)
BODY = bytes.fromhex("20800000 00000007 0102030405060708 0000000000000009 0000000000000000 01030002 00000000")


def test_a_hello_is_laid_out_as_drawn() -> None:
    assert wire.encode(HELLO, KEY) == BODY + siphash24(KEY, BODY)
    assert len(wire.encode(HELLO, KEY)) == wire.CONTROL_LENGTH == 48


@pytest.mark.parametrize("kind", Kind)
def test_decode_is_the_inverse_of_encode(kind: Kind) -> None:
    control = Control(kind, 1 << 31, (1 << 64) - 1, 1, 2, 3, 4, Flags.SPREAD | Flags.DIRECT, 2**32 - 1)
    assert wire.decode(wire.encode(control, KEY), KEY) == control
    assert wire.tunnel_of(wire.encode(control, KEY)) == control.tunnel


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda p: p[:-1], "has 48 bytes, this datagram has 47", id="short"),
        pytest.param(lambda p: p + b"x", "this datagram has 49", id="long"),
        pytest.param(lambda p: b"\x04" + p[1:], "this one begins with 04", id="data"),
        pytest.param(lambda p: b"\x60" + p[1:], "this one begins with 60", id="version"),
        pytest.param(lambda p: p[:3] + b"\x01" + p[4:], "has 0001", id="flags"),
        pytest.param(lambda p: p[:1] + b"\x01" + p[2:], "types 128, 129, this one is of type 1", id="type"),
        pytest.param(lambda p: p[:32] + b"\x03" + p[33:], "lane 3 of 3", id="lane"),
        pytest.param(lambda p: p[:33] + b"\x05" + p[34:], "lane 1 of 5: there are at most 4", id="lanes"),
        pytest.param(lambda p: p[:35] + b"\x08" + p[36:], "flags 0008", id="control flags"),
        pytest.param(lambda p: p[:20] + b"\xff" + p[21:], "tunnel 7: the tag does not fit", id="content"),
    ],
)
def test_anything_else_is_refused_with_the_reason(change: object, message: str) -> None:
    with pytest.raises(WireError, match=message):
        wire.decode(change(wire.encode(HELLO, KEY)), KEY)  # type: ignore[operator]


def test_another_key_is_refused() -> None:
    with pytest.raises(WireError, match="the tag does not fit the key"):
        wire.decode(wire.encode(HELLO, KEY), bytes(16))


def test_the_data_tag_covers_tunnel_service_addresses_and_protocol() -> None:
    source, destination = IPv4Address("100.64.0.1"), IPv4Address("192.168.50.11")
    message = bytes.fromhex("00000007 00000003 64400001 c0a8320b 06")
    assert wire.data_tag(KEY, 7, 3, source, destination, 6) == siphash24(KEY, message)


def test_the_data_tag_of_ipv6_covers_the_long_addresses() -> None:
    source, destination = IPv6Address("fd65::1"), IPv6Address("fd00::b")
    message = bytes.fromhex(f"00000007 00000003 {source.packed.hex()} {destination.packed.hex()} 3a")
    assert wire.data_tag(KEY, 7, 3, source, destination, 58) == siphash24(KEY, message)


@pytest.mark.parametrize(("outer", "added"), [("172.30.2.2", 48), ("fd00::2", 68)])
def test_the_overhead_is_that_of_the_outer_family(outer: str, added: int) -> None:
    assert wire.overhead(ip_address(outer)) == added
