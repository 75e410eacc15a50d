# SPDX-License-Identifier: Apache-2.0
"""What goes on when a part is down."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from conftest import ready_instances
from hosts import Lab, Target, settled, tally
from traffic import describe, traffic

from epic.client import EpicClient

# Prints how many next hops a route has, at first and at each change, for ten seconds.
WATCH_NEXT_HOPS = """
import subprocess, sys, time
last, end = None, time.time() + 10
while time.time() < end:
    route = subprocess.run(["ip", "route", "show", sys.argv[1]], capture_output=True, text=True).stdout
    if route.count("via ") != last:
        last = route.count("via ")
        print(last)
    time.sleep(0.01)
"""


ESTABLISHED_SECONDS = 3
"""In this time the traffic has all of its connections."""

ORPHANED_SECONDS = 6
"""In this time what is under way at a lost node is sent again to another one, which knows that it is lost."""


@contextmanager
def cut_off(lab: Lab, node: str) -> Iterator[None]:
    """Nothing reaches the EPIC node from the router, nor the router from the node; both links stay up."""
    chains = "; ".join(
        f"add chain netdev cut {way} {{ type filter hook {way} device {node} priority 0; policy drop; }}"
        for way in ("ingress", "egress")
    )
    lab["router"].run(f"nft 'add table netdev cut; {chains}'")
    try:
        yield
    finally:
        lab["router"].run("nft delete table netdev cut")


def unit(web: dict[str, Any]) -> str:
    return f"epic-envoy@{web['metadata']['namespace']}.{web['metadata']['name']}.service"


def test_without_the_control_plane_requests_go_on_and_a_restarted_envoy_serves_within_two_seconds(
    lab: Lab, api: EpicClient, web: dict[str, Any], web_target: Target
) -> None:
    of_epic2 = next(a for a, n in ready_instances(api, web["metadata"]["name"]).items() if n == "epic2")
    lab["epic1"].run("systemctl stop epic-control")
    try:
        load = lab.load(web_target, 250, 0.02)
        time.sleep(1)
        lab["epic2"].run(f"systemctl restart {unit(web)}")
        restarted = time.time()
        replies = load.stop()
    finally:
        lab["epic1"].run("systemctl start epic-control")
    after = [r for r in replies if r.at > restarted + 0.5]
    assert {r.status for r in after} == {200}, tally(after)
    served = [r.at - restarted for r in replies if r.inside == of_epic2 and r.at > restarted]
    assert served, tally(replies)
    assert min(served) <= 2.0


def test_the_route_of_a_killed_envoy_leaves_the_router_and_comes_back_by_itself(
    lab: Lab, api: EpicClient, web: dict[str, Any], web_target: Target
) -> None:
    address = web_target.address
    watcher = lab["router"].start(f"python3 -u -c '{WATCH_NEXT_HOPS}' {address}")
    assert watcher.stdout is not None
    assert watcher.stdout.readline() == "2\n"
    load = lab.load(web_target, 300, 0.02)
    time.sleep(0.5)
    lab["epic2"].run(f"systemctl kill --signal=KILL {unit(web)}")
    killed = time.time()
    replies = load.stop()
    history, _ = watcher.communicate(timeout=30)
    assert history.split() == ["1", "2"], "next hops in the router's table since the kill"
    later = [r for r in replies if r.at > killed + 1]
    assert {r.status for r in later} == {200}, tally(replies)
    names = ready_instances(api, web["metadata"]["name"])
    assert set(names.values()) == {"epic1", "epic2"}


@pytest.mark.parametrize("how", ["systemctl restart epic-agent", "systemctl kill -s KILL epic-agent"])
@pytest.mark.parametrize("node", ["epic1", "epic2", "node1", "node2"])
def test_an_agent_that_restarts_or_crashes_loses_no_request(
    lab: Lab, web_target: Target, node: str, how: str
) -> None:
    load = lab.load(web_target, 150, 0.02)
    time.sleep(0.5)
    lab[node].run(how)
    replies = load.stop()
    assert {r.status for r in replies} == {200}, tally(replies)


def test_a_node_that_is_lost_takes_its_own_connections_with_it_and_no_other(
    lab: Lab, web_target: Target
) -> None:
    with traffic(lab, web_target) as seen:
        time.sleep(ESTABLISHED_SECONDS)
        with cut_off(lab, "epic2"):
            cut = time.time()
            settled(lab, web_target, 1)
            time.sleep(ORPHANED_SECONDS)
            returns = time.time()
        settled(lab, web_target)
    assert seen.failures, "half of the connections were the lost node's: " + describe(seen)
    # Who had the lost node's word for its request says nothing more, and so is told nothing.
    silent = [failure for failure in seen.failures if failure.kind == "TimeoutError"]
    assert all(failure.opened < cut for failure in silent), describe(seen)
    reset = [failure for failure in seen.failures if failure not in silent]
    assert {failure.kind for failure in reset} <= {"ConnectionResetError"}, describe(seen)
    led_away = replace(seen, moved=[moved for moved in seen.moved if moved.at < returns])
    assert [f for f in led_away.rehashed if f not in silent] == reset, (
        "connections of the other node broke: " + describe(seen)
    )
    assert len(seen.moved) > len(led_away.moved), "the node that returned got some: " + describe(seen)
    assert not seen.dropped, describe(seen)
