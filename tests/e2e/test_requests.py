# SPDX-License-Identifier: Apache-2.0
"""Requests cross the cluster: both Envoys, both backends, and only the tunnel before the NAT."""

from __future__ import annotations

import re
import time
from typing import Any

from conftest import ready_instances
from hosts import Lab, Target, tally

from epic.client import EpicClient

OUTER = {"172.30.11.2", "172.30.12.2", "172.30.2.2"}
PACKET = re.compile(
    r"IP (?P<source>[\d.]+)\.(?P<sport>\d+) > (?P<target>[\d.]+)\.(?P<dport>\d+): (?P<what>.*)"
)


def test_a_hundred_requests_are_answered_through_both_envoys_by_both_backends(
    lab: Lab, api: EpicClient, web: dict[str, Any], web_target: Target
) -> None:
    replies = lab.request(web_target, 120)
    assert {r.status for r in replies} == {200}, tally(replies)
    assert len(replies) == 120
    inside = ready_instances(api, web["metadata"]["name"])
    assert {inside.get(r.inside) for r in replies} == {"epic1", "epic2"}, tally(replies)
    assert {r.backend for r in replies} == {"node1", "node2"}, tally(replies)


def test_between_router_and_nat_requests_are_seen_only_as_authenticated_tunnel_packets(
    lab: Lab, web_target: Target
) -> None:
    capture = lab["router"].start(
        "timeout 20 tcpdump -nn -l --immediate-mode -i nat ip and not tcp port 8443 and not tcp port 18001"
    )
    time.sleep(1)
    replies = lab.request(web_target, 60)
    assert {r.status for r in replies} == {200}, tally(replies)
    time.sleep(1)
    lab["router"].run("pkill -INT -x tcpdump")
    out, _ = capture.communicate(timeout=30)
    lines = [line for line in out.splitlines() if " IP " in line]
    assert len(lines) > 60, out
    for line in lines:
        packet = PACKET.search(line)
        assert packet, f"no UDP packet of the tunnel: {line}"
        assert {packet["source"], packet["target"]} <= OUTER, line
        assert "6080" in (packet["sport"], packet["dport"]), line
        assert "UDP" in packet["what"], line
