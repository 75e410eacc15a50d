"""Control packets and data tags: their bytes, and what is refused."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from epic.bpf import wire
from epic.bpf.siphash import siphash24
from epic.bpf.wire import Control, Kind, WireError

KEY = bytes(range(16))
HELLO = Control(Kind.HELLO, tunnel=7, counter=0x0102030405060708, sent_ns=9, echo_ns=0)
BODY = bytes.fromhex("20800000 00000007 0102030405060708 0000000000000009 0000000000000000")


def test_a_hello_is_laid_out_as_drawn() -> None:
    assert wire.encode(HELLO, KEY) == BODY + siphash24(KEY, BODY)
    assert len(wire.encode(HELLO, KEY)) == wire.CONTROL_LENGTH == 40


@pytest.mark.parametrize("kind", Kind)
def test_decode_is_the_inverse_of_encode(kind: Kind) -> None:
    control = Control(kind, 1 << 31, (1 << 64) - 1, 1, 2)
    assert wire.decode(wire.encode(control, KEY), KEY) == control
    assert wire.tunnel_of(wire.encode(control, KEY)) == control.tunnel


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda p: p[:-1], "has 40 bytes, this datagram has 39", id="short"),
        pytest.param(lambda p: p + b"x", "this datagram has 41", id="long"),
        pytest.param(lambda p: b"\x04" + p[1:], "this one begins with 04", id="data"),
        pytest.param(lambda p: b"\x60" + p[1:], "this one begins with 60", id="version"),
        pytest.param(lambda p: p[:3] + b"\x01" + p[4:], "has 0001", id="flags"),
        pytest.param(lambda p: p[:1] + b"\x01" + p[2:], "types 128, 129, this one is of type 1", id="type"),
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
