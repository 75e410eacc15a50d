# SPDX-License-Identifier: Apache-2.0
"""How a node stops announcing a gateway."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from conftest import PROXIES, ready_instances
from hosts import CommandFailed, Lab, Target, eventually, settled, tally
from traffic import describe, traffic

from epic.client import EpicClient

# Prints when, after a command, an address was first seen without its flag route, and its port closed.
WATCH = """
import json, socket, subprocess, sys, time
address, *command = sys.argv[1:]
print("ready", flush=True)
running = subprocess.Popen(command)
begin, seen = time.time(), {}
while len(seen) < 2 and time.time() < begin + 60:
    flag = ["ip", "route", "show", "exact", address + "/32", "proto", "50", "type", "blackhole"]
    if not subprocess.run(flag, capture_output=True).stdout:
        seen.setdefault("withdrawn", time.time() - begin)
    try:
        socket.create_connection((address, 80), timeout=0.2).close()
    except OSError:
        seen.setdefault("closed", time.time() - begin)
    time.sleep(0.005)
running.wait()
print(json.dumps(seen))
"""


def unit(web: dict[str, Any]) -> str:
    return f"epic-envoy@{web['metadata']['namespace']}.{web['metadata']['name']}.service"


def watching(lab: Lab, address: str, command: str) -> subprocess.Popen[str]:
    """The watch on epic2, which has begun."""
    watch = lab["epic2"].start(f"python3 -u -c {shlex.quote(WATCH)} {address} {command}")
    assert watch.stdout is not None
    assert watch.stdout.readline() == "ready\n"
    return watch


def ended(watch: subprocess.Popen[str]) -> dict[str, float]:
    """What it saw: seconds after its begin."""
    out, _ = watch.communicate(timeout=90)
    # systemctl may have said something before, such as that a run has started the unit again.
    seen: dict[str, float] = json.loads(out.splitlines()[-1])
    return seen


def is_announced(lab: Lab, address: str) -> bool:
    return bool(lab["epic2"].run(f"ip route show exact {address}/32 proto 50 type blackhole"))


def test_a_stopped_envoy_is_withdrawn_before_its_listener_closes(
    lab: Lab, api: EpicClient, web: dict[str, Any], web_target: Target
) -> None:
    load = lab.load(web_target, 150, 0.02)
    try:
        seen = ended(watching(lab, web_target.address, f"systemctl stop {unit(web)}"))
    finally:
        lab["epic2"].run(f"systemctl start {unit(web)}")
    replies = load.stop()
    assert seen["withdrawn"] + 0.05 < seen["closed"], seen
    # one may have been under way when the router took its way away
    assert sum(reply.status != 200 for reply in replies) <= 1, tally(replies)
    name = web["metadata"]["name"]
    eventually(lambda: len(ready_instances(api, name)) == 2, within=15, what="both instances announced again")


def test_a_deleted_gateway_is_withdrawn_before_its_listener_closes(
    lab: Lab, api: EpicClient, make_gateway: Callable[..., dict[str, Any]]
) -> None:
    proxy = make_gateway()
    name, address = proxy["metadata"]["name"], proxy["spec"]["public-address"]
    eventually(lambda: len(ready_instances(api, name)) == 2, within=30, what="both instances announced")
    settled(lab, Target(address, "none.example.net"))
    watch = watching(lab, address, "true")
    api.delete(f"{PROXIES}/{name}")
    seen = ended(watch)
    assert seen["withdrawn"] + 0.05 < seen["closed"], seen


def test_without_an_agent_too_a_dead_envoy_is_withdrawn_within_a_second(
    lab: Lab, api: EpicClient, web: dict[str, Any], web_target: Target
) -> None:
    lab["epic2"].run("systemctl stop epic-agent")
    try:
        assert is_announced(lab, web_target.address), "an agent that is gone withdraws nothing"
        lab["epic2"].run(f"systemctl kill --signal=KILL {unit(web)}")
        eventually(
            lambda: not is_announced(lab, web_target.address), within=1, what="the withdrawal", every=0.05
        )
        assert {reply.status for reply in lab.request(web_target, 20, 0.02)} == {200}
    finally:
        lab["epic2"].run("systemctl start epic-agent")
    name = web["metadata"]["name"]
    eventually(lambda: len(ready_instances(api, name)) == 2, within=15, what="both instances announced again")


CONNECTIONS, UNDER_WAY = 200, 10
BOOT = "cat /proc/1/stat | cut -d' ' -f22"
"""When the host's first process was started."""


def has_started_anew(lab: Lab, node: str, before: str) -> bool:
    try:
        return lab[node].run(BOOT) != before
    except (CommandFailed, subprocess.TimeoutExpired):
        return False


@pytest.mark.timeout(400)
def test_a_node_that_is_shut_down_undrained_is_withdrawn_before_its_envoy_ends_and_comes_back(
    lab: Lab, web_target: Target
) -> None:
    """Connections that it had are lost with it; new ones are not, and nobody else's."""
    before = lab["epic2"].run(BOOT)
    with traffic(lab, web_target, connections=CONNECTIONS) as seen:
        lab["epic2"].run("systemctl reboot", check=False)
        settled(lab, web_target, 1)
        eventually(lambda: has_started_anew(lab, "epic2", before), within=120, what="the host's next start")
        settled(lab, web_target, 2, within=120)
        time.sleep(2)
    assert [count for _, count in seen.next_hops] == [2, 1, 2], describe(seen)
    fresh = [failure for failure in seen.failures if not failure.kept]
    # some may have been under way when the router took their way away
    assert len(fresh) <= UNDER_WAY, describe(seen)
    broken = len(seen.failures) - len(fresh) + seen.dropped
    assert broken <= 0.65 * CONNECTIONS, describe(seen)
    back = seen.next_hops[2][0]
    assert not [failure for failure in seen.failures if failure.opened > back], describe(seen)
