# SPDX-License-Identifier: Apache-2.0
"""What somebody else breaks on a node is mended by the agent; meanwhile nothing leaves in the clear."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hosts import Host, Lab, Reply, Target, eventually, settled, tally

HEALED_SECONDS = 2.0
WATCHED_SECONDS = 8
DEFAULT_ROUTES = {"epic2": "172.30.12.1", "node2": "172.30.3.1"}

# This takes the kernel's own rules as well, without which no host can be reached: the agent puts them back.
# When it does not, the test has failed long before they are put back for the lab's sake.
FLUSH_RULES = (
    "systemd-run --quiet --on-active=30 sh -c '"
    "ip rule show | grep -q main || ip rule add pref 32766 lookup main; "
    "ip rule show | grep -q default || ip rule add pref 32767 lookup default'; "
    "ip rule flush"
)
LINK = "ip link set up0 down; ip link set up0 up; ip route replace default via {gateway}"

ON_BOTH = {
    "the tunnel's filters are removed": "tc qdisc del dev up0 clsact",
    "the underlay goes down and comes up": LINK,
    "all routing rules are flushed": FLUSH_RULES,
    "the agent's routes are flushed": "ip route flush table all proto 50",
    "the agent is killed": "systemctl kill -s KILL epic-agent",
    "the agent is restarted": "systemctl restart epic-agent",
}
ON_EPIC_NODES = {
    "the instance's link goes down and comes up": "ip link set {interface} down; ip link set {interface} up",
    "the filters of the instance's link are removed": "tc qdisc del dev {interface} clsact",
    "all firewall rules are flushed": "nft flush ruleset",
    "the distribution's firewall starts, reloads and stops": (
        "systemctl start nftables; systemctl reload nftables; systemctl stop nftables"
    ),
    "EPIC's firewall is stopped": "systemctl stop epic-firewall",
    "what prepares the node is stopped": "systemctl stop epic-node",
    "the Envoy is killed": "systemctl kill -s KILL '{envoy}'",
    "BIRD is killed": "systemctl kill -s KILL bird",
}
# Asks the node's own Envoy while it is announced; prints for how long on end it was and did not answer.
ANNOUNCED_UNFIT = """
import http.client, json, subprocess, sys, time
address, host, end = sys.argv[1], sys.argv[2], time.time() + float(sys.argv[3])
flag = ["ip", "route", "show", "exact", address + "/32", "proto", "50", "type", "blackhole"]
def serves():
    connection = http.client.HTTPConnection(address, 80, timeout=0.5)
    try:
        connection.request("GET", "/", headers={"Host": host})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
print("ready", flush=True)
spans, since, asked, answered = [], None, 0, 0
while time.time() < end:
    begun = time.time()
    announced = bool(subprocess.run(flag, capture_output=True).stdout)
    well = not announced or serves()
    asked, answered = asked + announced, answered + (announced and well)
    if not well and since is None:
        since = begun
    elif well and since is not None:
        spans.append(time.time() - since)
        since = None
    time.sleep(0.05)
print(json.dumps({"spans": spans + ([time.time() - since] if since else []), "answered": answered}))
"""
CASES = [
    *((node, what) for node in ("epic2", "node2") for what in ON_BOTH),
    *(("epic2", what) for what in ON_EPIC_NODES),
]


WATCHED = ("router", "nat")


def start_capture(host: Host) -> subprocess.Popen[str]:
    """A capture of packets from or to inside addresses outside the tunnel, which has begun."""
    capture = host.start("exec timeout 120 tcpdump -nn -l --immediate-mode -i any 'net 100.64.0.0/10' 2>&1")
    assert capture.stdout is not None
    said = []
    for line in capture.stdout:
        if line.startswith("listening on "):
            return capture
        said.append(line)
    raise AssertionError(f"no capture on {host.name}: {''.join(said)}")


@pytest.fixture
def clear_text(lab: Lab) -> Iterator[None]:
    """No packet from or to an inside address is seen outside the tunnel, by those between the nodes."""
    captures = {name: start_capture(lab[name]) for name in WATCHED}
    yield
    early = {name for name, capture in captures.items() if capture.poll() is not None}
    for name in WATCHED:
        lab[name].run("pkill -INT -x tcpdump || true")
    said = {name: capture.communicate(timeout=30)[0] for name, capture in captures.items()}
    assert not early, f"captures that ended before the test: {said}"
    assert all("packets captured" in text for text in said.values()), said
    assert [line for text in said.values() for line in text.splitlines() if " > " in line] == []


def test_what_would_leave_in_the_clear_is_seen(lab: Lab) -> None:
    """The watch of the tests below, on a packet that a workload node sends outside any tunnel."""
    captures = {name: start_capture(lab[name]) for name in WATCHED}
    try:
        lab["nat"].run("ping -c 3 -i 0.2 -W 1 -I 172.30.2.2 100.64.0.1 || true")
    finally:
        for name in WATCHED:
            lab[name].run("pkill -INT -x tcpdump || true")
    for name, capture in captures.items():
        assert "172.30.2.2 > 100.64.0.1" in capture.communicate(timeout=30)[0], name


def instance(web: dict[str, Any], lab: Lab, node: str) -> dict[str, str]:
    """The words that commands need."""
    gateway = f"{web['metadata']['namespace']}.{web['metadata']['name']}"
    environment = lab[node].run(f"cat /etc/epic/gateways/{gateway}/netns.env")
    interface = next(line for line in environment.splitlines() if line.startswith("INTERFACE="))
    return {"interface": interface.partition("=")[2], "envoy": f"epic-envoy@{gateway}.service"}


@pytest.mark.usefixtures("clear_text")
@pytest.mark.parametrize(("node", "what"), CASES, ids=[f"{what} on {node}" for node, what in CASES])
def test_after_two_seconds_every_request_is_answered_again(
    lab: Lab, web: dict[str, Any], web_target: Target, node: str, what: str
) -> None:
    command = (ON_BOTH | ON_EPIC_NODES)[what]
    words = {"gateway": DEFAULT_ROUTES[node]}
    if node == "epic2":
        words |= instance(web, lab, node)
    watch = watching(lab, web_target) if node == "epic2" else None
    load = lab.load(web_target, 160, 0.04)
    time.sleep(0.5)
    lab[node].run(command.format(**words))
    broken = time.time()
    replies = load.stop()
    if watch is not None:
        never_announced_unfit(watch)
        # the agent puts back what a stopped unit took away; the unit itself is for its administrator to start
        lab[node].run("systemctl start epic-node")
    settled(lab, web_target)
    after = [reply for reply in replies if reply.at > broken + HEALED_SECONDS]
    assert len(after) > 20, tally(replies)
    assert {reply.status for reply in after} == {200}, failures(after, broken)
    both = eventually(
        lambda: {r.backend for r in lab.request(web_target, 12) if r.status == 200},
        within=10,
        what="answers of both backends",
    )
    assert both == {"node1", "node2"}


def watching(lab: Lab, target: Target) -> subprocess.Popen[str]:
    """The node's Envoy is asked from now on, while it is announced."""
    words = f"{target.address} {target.host} {WATCHED_SECONDS}"
    watch = lab["epic2"].start(f"python3 -u -c {shlex.quote(ANNOUNCED_UNFIT)} {words}")
    assert watch.stdout is not None
    assert watch.stdout.readline() == "ready\n"
    return watch


def never_announced_unfit(watch: subprocess.Popen[str]) -> None:
    """A node that does not serve is mended or withdrawn in time."""
    said = json.loads(watch.communicate(timeout=60)[0])
    assert said["answered"] > 20, said
    assert max(said["spans"], default=0) < HEALED_SECONDS, said


def failures(replies: list[Reply], since: float) -> str:
    """When requests failed, in seconds since the breach."""
    return ", ".join(f"{r.at - since:.2f} s {r.status} {r.text[:60]}" for r in replies if r.status != 200)


@pytest.mark.parametrize("unit", ["epic-netns@{gateway}", "epic-envoy@{gateway}", "bird"])
def test_a_unit_that_is_stopped_takes_the_nodes_announcement_with_it_and_no_request(
    lab: Lab, web: dict[str, Any], web_target: Target, unit: str
) -> None:
    gateway = f"{web['metadata']['namespace']}.{web['metadata']['name']}"
    name = unit.format(gateway=gateway)
    load = lab.load(web_target, 150, 0.02)
    time.sleep(0.5)
    lab["epic2"].run(f"systemctl stop '{name}'")
    stopped = time.time()
    try:
        settled(lab, web_target, 1)
        replies = load.stop()
    finally:
        lab["epic2"].run(f"systemctl start '{name}' 'epic-envoy@{gateway}'")
    after = [reply for reply in replies if reply.at > stopped + 0.5]
    assert {reply.status for reply in after} == {200}, failures(after, stopped)
    settled(lab, web_target)


@pytest.mark.usefixtures("clear_text")
@pytest.mark.parametrize("node", ["epic2", "node2"])
def test_an_agent_that_is_stopped_for_a_while_costs_no_request(
    lab: Lab, web_target: Target, node: str
) -> None:
    load = lab.load(web_target, 150, 0.04)
    lab[node].run("systemctl stop epic-agent")
    time.sleep(2)
    lab[node].run("systemctl start epic-agent")
    started = time.time()
    replies = load.stop()
    assert {reply.status for reply in replies} == {200}, failures(replies, started)
    settled(lab, web_target)


def test_without_agent_and_envoy_the_announcement_goes_within_a_second(
    lab: Lab, web: dict[str, Any], web_target: Target
) -> None:
    gateway = f"{web['metadata']['namespace']}.{web['metadata']['name']}"
    lab["epic2"].run("systemctl stop epic-agent")
    try:
        settled(lab, web_target)
        lab["epic2"].run(
            f"systemctl kill -s KILL 'epic-envoy@{gateway}'; systemctl stop 'epic-envoy@{gateway}'"
        )
        settled(lab, web_target, 1, within=1.5)
    finally:
        lab["epic2"].run(f"systemctl start 'epic-envoy@{gateway}' epic-agent")
    settled(lab, web_target)


@pytest.mark.parametrize("node", ["epic2", "node2"])
def test_an_agent_that_hangs_is_started_anew_and_no_request_notices(
    lab: Lab, web: dict[str, Any], web_target: Target, node: str
) -> None:
    """systemd ends what has not said for ten seconds that it lives; the kernel goes on meanwhile."""
    settled(lab, web_target)
    show = "systemctl show -P {} epic-agent"
    before, restarts = (lab[node].run(show.format(name)).strip() for name in ("MainPID", "NRestarts"))
    load = lab.load(web_target, 300, 0.05)
    lab[node].run("systemctl kill -s STOP --kill-whom=main epic-agent")

    def anew() -> bool:
        pid, count, state = (
            lab[node].run(show.format(name)).strip() for name in ("MainPID", "NRestarts", "ActiveState")
        )
        return pid not in {"0", before} and int(count) > int(restarts) and state == "active"

    eventually(anew, within=60, what="the agent started anew by systemd", every=0.5)
    hanging = time.time()
    replies = load.stop()
    assert {reply.status for reply in replies} == {200}, failures(replies, hanging)
    settled(lab, web_target)
