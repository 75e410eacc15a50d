# SPDX-License-Identifier: Apache-2.0
"""What an instance cannot reach, whatever its Envoy were made to do, and what a client cannot."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hosts import Lab, Target, run_site, tally

HEALED_SECONDS = 2.0

# Sends a SYN from an address and port, be they somebody's already, and prints who answers within a second.
SYN = """
import socket, struct, sys, time
source, target = (sys.argv[1], int(sys.argv[2])), (sys.argv[3], int(sys.argv[4]))
ends = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
tcp = struct.pack("!HHIIBBHHH", source[1], target[1], 1, 0, 5 << 4, 2, 1024, 0, 0)
covered = ends + struct.pack("!BBH", 0, 6, len(tcp)) + tcp
total = sum(struct.unpack(f"!{len(covered) // 2}H", covered))
total = (total & 0xFFFF) + (total >> 16)
checksum = ~(total + (total >> 16)) & 0xFFFF
tcp = tcp[:16] + struct.pack("!H", checksum) + tcp[18:]
packet = struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 64, 6, 0) + ends + tcp
sniffer = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
sniffer.settimeout(0.1)
socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).sendto(packet, (target[0], 0))
end = time.time() + 1
while time.time() < end:
    try:
        seen = sniffer.recv(100)
    except TimeoutError:
        continue
    if seen[12:16] == socket.inet_aton(target[0]) and seen[20:24] == struct.pack("!HH", target[1], source[1]):
        print("answered")
        break
else:
    print("nothing")
"""

CONNECT = """
import socket, sys
for target in sys.argv[1:]:
    address, port = target.rsplit(":", 1)
    try:
        socket.create_connection((address, int(port)), timeout=1)
        print(target, "answers")
    except TimeoutError:
        pass
    except OSError as error:
        print(target, type(error).__name__)
"""


def gateway_of(web: dict[str, Any]) -> str:
    return f"{web['metadata']['namespace']}.{web['metadata']['name']}"


def refused(lab: Lab) -> int:
    """Packets that EPIC's rules dropped on epic1, those of instances or those to ports of management."""
    rules = lab["epic1"].run("nft list table inet epic; nft list table inet epic_management")
    return sum(int(count) for count in re.findall(r"counter packets (\d+) .* drop", rules))


@pytest.mark.parametrize("port", [80, 45678], ids=["listeners-port", "another-port"])
@pytest.mark.parametrize(
    "target",
    [
        ("169.254.0.1", 22),
        ("172.30.11.2", 22),
        ("172.30.11.2", 8443),
        ("10.99.0.12", 18000),
        ("172.30.12.2", 22),
    ],
)
def test_an_instance_opens_no_connection_from_its_public_address(
    lab: Lab, web: dict[str, Any], target: tuple[str, int], port: int
) -> None:
    before = refused(lab)
    command = f"ip netns exec epic-{gateway_of(web)} python3 -"
    ends = f"{web['spec']['public-address']} {port} {target[0]} {target[1]}"
    assert lab["epic1"].run(f"{command} {ends}", stdin=SYN).strip() == "nothing"
    assert refused(lab) > before


@pytest.mark.parametrize("target", [("169.254.0.1", 22), ("172.30.11.2", 8443), ("172.30.12.2", 22)])
def test_nor_from_its_inside_address(lab: Lab, web: dict[str, Any], target: tuple[str, int]) -> None:
    inside = next(i["inside-address"] for i in web["status"]["instances"] if i["node"] == "epic1")
    command = f"ip netns exec epic-{gateway_of(web)} python3 -"
    ends = f"{inside} 45678 {target[0]} {target[1]}"
    assert lab["epic1"].run(f"{command} {ends}", stdin=SYN).strip() == "nothing"


def test_no_port_of_management_answers_a_client(lab: Lab) -> None:
    ports = {"172.30.11.2": (22, 179, 8443, 18000, 18001, 9101, 9102), "172.30.12.2": (22, 179, 9101)}
    targets = [f"{address}:{port}" for address, of_it in ports.items() for port in of_it]
    assert lab["client"].run(f"python3 - {' '.join(targets)}", stdin=CONNECT) == ""


@pytest.mark.parametrize("how", ["start", "reload", "restart", "stop"])
def test_whatever_the_distributions_firewall_does_the_rules_are_in_force(
    lab: Lab, web_target: Target, how: str
) -> None:
    """The agent opens listeners' ports again. `stop` is last: it leaves the unit as the lab has it."""
    load = lab.load(web_target, 200, 0.02)
    lab["epic1"].run(f"systemctl {how} nftables")
    done = time.time()
    assert lab["client"].run("python3 - 172.30.11.2:22", stdin=CONNECT) == ""
    assert lab["client"].run(f"python3 - {web_target.address}:81", stdin=CONNECT) == ""
    replies = load.stop()
    later = [reply for reply in replies if reply.at > done + HEALED_SECONDS]
    assert {reply.status for reply in later} == {200}, tally(replies)


def test_networks_that_would_lock_ansible_out_are_refused(lab: Lab) -> None:
    before = lab["epic1"].run("sha256sum /etc/epic/firewall.nft")
    done = run_site("--tags", "firewall", "--extra-vars", '{"cluster_management_networks": ["192.0.2.0/24"]}')
    assert done.returncode != 0
    assert "The next connection would be refused" in " ".join(done.stdout.split()), done.stdout[-3000:]
    assert lab["epic1"].run("sha256sum /etc/epic/firewall.nft") == before
