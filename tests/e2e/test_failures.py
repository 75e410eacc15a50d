"""What goes on when a part is down."""

from __future__ import annotations

import time
from typing import Any

import pytest
from conftest import ready_instances
from hosts import Lab, Target, eventually, tally

from epic.client import EpicClient


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

    def next_hops() -> int:
        return lab["router"].run(f"ip route show {address}").count("via ")

    assert next_hops() == 2
    monitor = lab["router"].start("timeout 15 ip -o -ts monitor route")
    time.sleep(0.5)
    load = lab.load(web_target, 300, 0.02)
    time.sleep(0.5)
    lab["epic2"].run(f"systemctl kill --signal=KILL {unit(web)}")
    killed = time.time()
    eventually(lambda: next_hops() == 2, within=15, what="both next hops in the router's table again")
    replies = load.stop()
    lab["router"].run("pkill -x ip", check=False)
    events, _ = monitor.communicate(timeout=30)
    alone = [line for line in events.splitlines() if address in line and "172.30.12.2" not in line]
    assert alone, f"the route by epic2 never left the router's table:\n{events}"
    later = [r for r in replies if r.at > killed + 1]
    assert {r.status for r in later} == {200}, tally(replies)
    names = ready_instances(api, web["metadata"]["name"])
    assert set(names.values()) == {"epic1", "epic2"}


@pytest.mark.parametrize("node", ["epic1", "epic2", "node1", "node2"])
def test_restarting_an_agent_loses_no_request(lab: Lab, web_target: Target, node: str) -> None:
    load = lab.load(web_target, 150, 0.02)
    time.sleep(0.5)
    lab[node].run("systemctl restart epic-agent")
    replies = load.stop()
    assert {r.status for r in replies} == {200}, tally(replies)
