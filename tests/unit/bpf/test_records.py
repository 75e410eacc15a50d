# SPDX-License-Identifier: Apache-2.0
"""The maps' values as bytes."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from epic.bpf.tables import records
from epic.bpf.tables.drop_reasons import DROP_REASONS
from epic.bpf.tables.records import Route, Tunnel, TunnelCounters, Underlay
from epic.errors import Invalid

PROGRAMS = Path(__file__).parents[3] / "bpf"
FAR, HOP = IPv4Address("172.30.11.2"), IPv4Address("172.30.2.1")
TUNNEL = Tunnel(
    id=7,
    service=3,
    inside=IPv4Address("100.64.0.1"),
    inside6=IPv6Address("fd65::1"),
    local=IPv4Address("172.30.2.2"),
    remote=FAR,
    remote_port=6080,
    underlay="up0",
    interface="epg644000010000",
    keys=(None, bytes(range(16))),
    active=1,
    route=Route(FAR, "up0", HOP),
    lanes=2,
    checksum=True,
)
MARK = bytes(range(1, 9))
UNDERLAY = Underlay(interface=5, mtu=1500, instance=9, route=5)


def test_a_tunnel_is_packed_as_the_struct_in_c() -> None:
    packed = records.pack_tunnel(TUNNEL, 4, UNDERLAY, MARK)
    assert packed.hex(" ", 4) == (
        "07000000 03000000 04000000 09000000 05000000 dc050000 64400001 01020200 05000000 00000000 "
        "01020304 05060708 "
        "00000000 00000000 00000000 00000000 00010203 04050607 08090a0b 0c0d0e0f "
        "fd650000 00000000 00000000 00000001 "
        "00000000 00000000 0000ffff ac1e0b02 00000000 00000000 0000ffff ac1e0202 17c00200 00000000 "
        "00000000 00000000 0000ffff ac1e0b02 02000000 ac1e0201 00000000 00000000 00000000 00000000"
    )


def test_without_a_next_hop_the_far_end_is_on_the_link() -> None:
    far = IPv6Address("fd00::2")
    route = Route(far, "up0", None)
    tunnel = replace(TUNNEL, local=IPv6Address("fd00::1"), remote=far, route=route)
    packed = records.pack_tunnel(tunnel, 4, UNDERLAY, MARK)
    assert packed[-40:] == far.packed + (10).to_bytes(4, sys.byteorder) + far.packed + bytes(4)


def test_a_tunnel_without_a_route_has_no_next_hop() -> None:
    packed = records.pack_tunnel(replace(TUNNEL, route=None), 4, UNDERLAY._replace(route=0), MARK)
    assert packed[-40:] == bytes(40)


@pytest.mark.parametrize("local", [None, IPv4Address("172.30.2.2")])
def test_the_ends_of_a_tunnel_are_read_back(local: IPv4Address | None) -> None:
    tunnel = replace(TUNNEL, local=local)
    assert records.unpack_tunnel(records.pack_tunnel(tunnel, 4, UNDERLAY, MARK)) == records.TunnelRecord(
        id=7,
        service=3,
        slot=4,
        interface=9,
        inside=TUNNEL.inside,
        inside6=TUNNEL.inside6,
        local=local,
        remote=FAR,
        remote_port=6080,
        active=1,
        keys=(bytes(16), bytes(range(16))),
        fingerprint=MARK,
    )


@pytest.mark.parametrize("address", [None, IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")])
def test_addresses_are_read_back(address: records.Address | None) -> None:
    assert records.unpack_address(records.pack_address(address)) == address


def _end(address: str | None, port: int, flags: int = 0) -> bytes:
    packed = records.pack_address(ip_address(address) if address else None)
    local = records.pack_address(IPv4Address("172.30.2.2"))
    return records.END.pack(packed, local, port.to_bytes(2, "big"), flags)


def test_of_two_places_of_a_far_end_the_current_one_counts() -> None:
    silent = bytes(records.LANE.size)
    heard = records.LANE.pack(5, 6, 1, _end("192.0.2.1", 1), _end("192.0.2.2", 40000, records.SPREAD))
    value = records.PEER.pack(2, 99, silent + heard + silent + silent)
    assert records.generation_of(value) == 99
    assert records.unpack_peer(value, 0) is None
    assert records.unpack_peer(value, 1) == records.Peer(
        IPv4Address("192.0.2.2"), 40000, IPv4Address("172.30.2.2"), 5, 6, 2, spread=True, checksum=False
    )


def test_an_event_tells_from_where_to_where() -> None:
    value = records.EVENT.pack(7, 1, 2, 99, _end("192.0.2.1", 1), _end("2001:db8::1", 2))
    before, after = (IPv4Address("192.0.2.1"), 1), (IPv6Address("2001:db8::1"), 2)
    assert records.unpack_event(value) == records.TunnelEvent("moved", 7, 2, 99, before, after)
    first = records.EVENT.pack(7, 0, 0, 99, _end(None, 0), _end("192.0.2.1", 1))
    assert records.unpack_event(first) == records.TunnelEvent("up", 7, 0, 99, None, before)


@pytest.mark.parametrize(
    ("tunnel", "message"),
    [
        pytest.param(replace(TUNNEL, active=0), "tunnel 7: slot 0 signs and must hold", id="empty slot"),
        pytest.param(replace(TUNNEL, active=2), "slot 2 signs", id="no such slot"),
        pytest.param(replace(TUNNEL, keys=(None, b"short")), "has 5 bytes, not 16", id="short key"),
        pytest.param(replace(TUNNEL, id=0), "tunnel 0: ids are 1 and higher", id="id"),
        pytest.param(replace(TUNNEL, lanes=5), "5 lanes; there can be 1 to 4", id="lanes"),
        pytest.param(replace(TUNNEL, local=IPv6Address("fd00::1")), "different families", id="families"),
    ],
)
def test_a_tunnel_that_cannot_work_is_refused(tunnel: Tunnel, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        records.pack_tunnel(tunnel, 4, UNDERLAY, MARK)


def test_traffic_is_summed_over_the_processors() -> None:
    value = records.TRAFFIC.pack(1, 2, 3, 4) + records.TRAFFIC.pack(10, 20, 30, 40)
    assert records.sum_traffic(value) == TunnelCounters(11, 22, 33, 44)


@pytest.mark.parametrize("names", ["drop_reasons", "chance_counters"])
def test_the_names_are_those_of_the_header(names: str) -> None:
    command = [sys.executable, PROGRAMS / "generate_names", PROGRAMS / f"{names}.h"]
    generated = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    here = Path(records.__file__).with_name(f"{names}.py").read_text(encoding="utf-8")
    assert here == generated, "run `make -C bpf`"


def test_every_drop_reason_is_used_and_described() -> None:
    paths = (path for path in PROGRAMS.glob("*.[hc]") if path.name != "drop_reasons.h")
    sources = "".join(path.read_text(encoding="utf-8") for path in paths)
    used = {name.lower() for name in re.findall(r"\bDROP_([A-Z_]+)\b", sources)} - {"reasons"}
    assert used == {name for name, _ in DROP_REASONS}
    described = (PROGRAMS.parent / "docs/transport.md").read_text(encoding="utf-8")
    assert [name for name, _ in DROP_REASONS if f"`{name}`" not in described] == []
