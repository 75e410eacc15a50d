# SPDX-License-Identifier: Apache-2.0
"""Packets that nobody signed, or that were signed for others to send, change nothing and are counted."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

import pytest
from hosts import Lab, Target, eventually, tally
from traffic import describe, none_broken, traffic
from tunnel_keys import rotate

from epic.bpf.packets import wire
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


TIMES = 5
NODE, WORKLOAD, ROUTER = "172.30.11.2", "172.30.3.11", "172.30.11.1"
# Prints the first data packet and the first hello from a workload node to an EPIC node that pass.
CAPTURE = """
import json, socket, sys, time
capture = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
capture.settimeout(1)
print("ready", flush=True)
ends = socket.inet_aton(sys.argv[1]) + socket.inet_aton(sys.argv[2])
seen, until = {}, time.time() + 20
while len(seen) < 2 and time.time() < until:
    try:
        packet = capture.recv(65535)[14:]
    except TimeoutError:
        continue
    header = (packet[0] & 15) * 4
    if packet[12:20] != ends or packet[9] != 17 or packet[header + 2:header + 4] != (6080).to_bytes(2, "big"):
        continue
    length = int.from_bytes(packet[header + 4:header + 6], "big")
    payload = packet[header + 8:header + length]
    kind = "hello" if payload[0] & 0x20 else "data"
    seen.setdefault(kind, [int.from_bytes(packet[header:header + 2], "big"), payload.hex()])
print(json.dumps(seen))
"""
# Sends a UDP packet from any address.
SEND_AS = """
import socket, struct, sys
source, port, target, payload = sys.argv[1], int(sys.argv[2]), sys.argv[3], bytes.fromhex(sys.argv[4])
udp = struct.pack("!HHHH", port, 6080, 8 + len(payload), 0) + payload
ends = socket.inet_aton(source) + socket.inet_aton(target)
header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + ends
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
    for _ in range(int(sys.argv[5])):
        sock.sendto(header + udp, (target, 0))
"""
# Sends ICMP errors of a stranger to an inside address, about a packet that nobody there sent.
SEND_ERROR = """
import socket, struct, sys
def ip(protocol, source, target, rest):
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(rest), 0, 0, 64, protocol, 0) + ends + rest
inside, times = sys.argv[1], int(sys.argv[2])
quoted = ip(6, "10.9.9.9", "10.8.8.8", struct.pack("!HHI", 1, 2, 3))
body = struct.pack("!BBHHH", 3, 4, 0, 0, 68) + quoted
total = sum(struct.unpack(f"!{len(body) // 2}H", body))
total = (total & 0xFFFF) + (total >> 16)
body = body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
    for _ in range(times):
        sock.sendto(ip(1, "10.9.9.9", inside, body), (inside, 0))
"""
DROPS = """
/opt/epic/current/bin/python - <<'PY'
import json
from pathlib import Path
import epic.bpf
from epic.bpf.dataplane import Dataplane
plane = Dataplane(Path("/sys/fs/bpf/epic"), Path(epic.bpf.__file__).parent / "gue.bpf.o")
print(json.dumps(plane.drop_counters()))
PY
"""


@dataclass(frozen=True)
class Captured:
    """A packet of a tunnel: the outer port that it came from, and what UDP carried."""

    port: int
    payload: str


def capture(lab: Lab, target: Target) -> dict[str, Captured]:
    """A data packet and a hello, both good, as the router sees them between node2 and epic1."""
    watch = lab["router"].start(f"python3 -u -c {shlex.quote(CAPTURE)} {WORKLOAD} {NODE}")
    assert watch.stdout is not None
    assert watch.stdout.readline() == "ready\n"
    assert {reply.status for reply in lab.request(target, 40)} == {200}
    seen = json.loads(watch.communicate(timeout=30)[0])
    assert set(seen) == {"data", "hello"}
    return {kind: Captured(*found) for kind, found in seen.items()}


def counted(lab: Lab, node: str, source: str, command: str, stdin: str) -> dict[str, int]:
    """For which reasons more packets were dropped on a node, after a command on the host `source`."""
    before = json.loads(lab[node].run(DROPS))
    lab[source].run(command, stdin=stdin)
    after = json.loads(lab[node].run(DROPS))
    return {name: count - before[name] for name, count in after.items() if count > before[name]}


def resend(lab: Lab, packet: Captured, source: str) -> dict[str, int]:
    """Send what was captured once more from an address, and see why epic1 drops it."""
    words = f"{source} {packet.port} {NODE} {packet.payload} {TIMES}"
    return counted(lab, "epic1", "router", f"python3 - {words}", SEND_AS)


def test_a_captured_packet_is_worth_nothing_from_elsewhere_nor_after_its_key_which_changes_without_a_failure(
    lab: Lab, api: EpicClient, web_target: Target
) -> None:
    packets = capture(lab, web_target)
    tunnel = int(packets["hello"].payload[8:16], 16)
    peer = json.loads(lab["epic1"].run(STATE % tunnel))["peer"]
    assert peer[0] == WORKLOAD
    assert resend(lab, packets["data"], ROUTER) == {"outer_source": TIMES}
    assert resend(lab, packets["hello"], ROUTER) == {"control_replayed": TIMES}
    assert resend(lab, packets["hello"], WORKLOAD) == {"control_replayed": TIMES}
    assert json.loads(lab["epic1"].run(STATE % tunnel))["peer"] == peer
    with traffic(lab, web_target) as seen:
        rotate(api, within=120)
    assert seen.sent > 1000, describe(seen)
    none_broken(seen)
    for source in (WORKLOAD, ROUTER):
        eventually(
            lambda source=source: resend(lab, packets["data"], source) == {"tag_wrong": TIMES},
            within=60,
            what="an end of the old key",
            every=1,
        )
    replies = lab.request(web_target, 20)
    assert {r.status for r in replies} == {200}, tally(replies)


def test_an_error_of_a_stranger_enters_no_tunnel_and_is_counted(
    lab: Lab, web: dict[str, Any], web_target: Target
) -> None:
    inside = next(i["inside-address"] for i in web["status"]["instances"] if i["node"] == "epic1")
    why = counted(lab, "node2", "node2", f"python3 - {inside} {TIMES}", SEND_ERROR)
    assert why == {"source_not_endpoint": TIMES}
    replies = lab.request(web_target, 20)
    assert {r.status for r in replies} == {200}, tally(replies)
