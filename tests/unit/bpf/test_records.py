"""The maps' values as bytes."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from epic.bpf import records
from epic.bpf.drop_reasons import DROP_REASONS
from epic.bpf.records import Tunnel, TunnelCounters
from epic.errors import Invalid

PROGRAMS = Path(__file__).parents[3] / "bpf"
TUNNEL = Tunnel(
    id=7,
    service=3,
    inside=IPv4Address("100.64.0.1"),
    local=IPv4Address("172.30.2.2"),
    remote=None,
    remote_port=6080,
    underlay="up0",
    interface="epg64400001",
    keys=(None, bytes(range(16))),
    active=1,
)


def test_a_tunnel_is_packed_as_the_struct_in_c() -> None:
    assert records.pack_tunnel(TUNNEL, 5, 1500).hex(" ", 4) == (
        "03000000 64400001 ac1e0202 00000000 17c00102 05000000 dc050000 00000000 "
        "00000000 00000000 00000000 00000000 00010203 04050607 08090a0b 0c0d0e0f"
    )


def test_the_ends_of_a_tunnel_are_read_back() -> None:
    declared = replace(TUNNEL, remote=IPv4Address("172.30.11.2"))
    for tunnel in (TUNNEL, declared):
        ends = records.unpack_tunnel(records.pack_tunnel(tunnel, 5, 1500))
        assert (ends.inside, ends.local, ends.remote, ends.remote_port) == (
            tunnel.inside,
            tunnel.local,
            tunnel.remote,
            6080,
        )


@pytest.mark.parametrize(
    ("tunnel", "message"),
    [
        pytest.param(replace(TUNNEL, active=0), "tunnel 7: slot 0 signs and must hold", id="empty slot"),
        pytest.param(replace(TUNNEL, active=2), "slot 2 signs", id="no such slot"),
        pytest.param(replace(TUNNEL, keys=(None, b"short")), "has 5 bytes, not 16", id="short key"),
        pytest.param(replace(TUNNEL, id=0), "tunnel 0: ids are 1 and higher", id="id"),
    ],
)
def test_a_tunnel_that_cannot_work_is_refused(tunnel: Tunnel, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        records.pack_tunnel(tunnel, 5, 1500)


def test_traffic_is_summed_over_the_processors() -> None:
    value = records.TRAFFIC.pack(1, 2, 3, 4) + records.TRAFFIC.pack(10, 20, 30, 40)
    assert records.sum_traffic(value) == TunnelCounters(11, 22, 33, 44)


def test_the_drop_reasons_are_those_of_the_header() -> None:
    command = [sys.executable, PROGRAMS / "generate_drop_reasons", PROGRAMS / "drop_reasons.h"]
    generated = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    here = Path(records.__file__).with_name("drop_reasons.py").read_text(encoding="utf-8")
    assert here == generated, "run `make -C bpf`"


def test_every_drop_reason_is_used_and_described() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in PROGRAMS.glob("*.[hc]"))
    used = {name.lower() for name in re.findall(r"drop\(DROP_(\w+)\)", sources)}
    assert used == {name for name, _ in DROP_REASONS}
    described = (PROGRAMS.parent / "docs/transport.md").read_text(encoding="utf-8")
    assert [name for name, _ in DROP_REASONS if f"`{name}`" not in described] == []
