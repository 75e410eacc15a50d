# SPDX-License-Identifier: Apache-2.0
"""Packets that nobody signed change nothing and are counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hosts import Lab, Target, tally

from epic.bpf import wire
from epic.client import EpicClient

FORGED = bytes(16)
STATE = """
/opt/epic/current/bin/python - <<'PY'
import json
from pathlib import Path
import epic.bpf
from epic.bpf.dataplane import Dataplane
plane = Dataplane(Path("/sys/fs/bpf/epic"), Path(epic.bpf.__file__).parent / "gue.bpf.o")
peer = plane.peer(%d)
print(json.dumps({"drops": plane.drop_counters(), "peer": [str(peer.address), peer.port]}))
PY
"""
SEND = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    for _ in range(5):
        sock.sendto(bytes.fromhex(sys.argv[2]), (sys.argv[1], 6080))
"""


def forged_hello(tunnel: int, _service: int) -> bytes:
    """A hello from the far future, so that only its tag can be what is wrong."""
    return wire.encode(wire.Control(wire.Kind.HELLO, tunnel, 2**63, 1), FORGED)


def forged_data(tunnel: int, service: int) -> bytes:
    """A data packet that is right but for its tag."""
    inner = bytes.fromhex("4500001c000000004011000001020304640000010000000000080000")
    return bytes.fromhex("04040000") + _id(tunnel) + _id(service) + bytes(8) + inner


def _id(number: int) -> bytes:
    return number.to_bytes(4, "big")


@pytest.mark.parametrize("forge", [forged_hello, forged_data])
def test_a_forged_packet_moves_no_tunnel_and_is_counted(
    lab: Lab, api: EpicClient, web: dict[str, Any], web_target: Target, forge: Any
) -> None:
    epic1 = {
        endpoint["tunnel-id"]
        for node in web["spec"]["gue-tunnel-endpoints"].values()
        for endpoint in node["epic-endpoints"].values()
        if endpoint["epic-address"] == "172.30.11.2"
    }
    tunnel = min(epic1)
    forged = forge(tunnel, web["status"]["service"])
    before = json.loads(lab["epic1"].run(STATE % tunnel))
    lab["router"].run(f"python3 - 172.30.11.2 {forged.hex()}", stdin=SEND)
    after = json.loads(lab["epic1"].run(STATE % tunnel))
    assert after["peer"] == before["peer"]
    counted = {
        name: count - before["drops"][name]
        for name, count in after["drops"].items()
        if count > before["drops"][name]
    }
    assert sum(counted.values()) == 5, counted
    replies = lab.request(web_target, 20)
    assert {r.status for r in replies} == {200}, tally(replies)
