# SPDX-License-Identifier: Apache-2.0
"""Planned work on the whole cluster costs no request and breaks no connection, whatever the router does."""

from __future__ import annotations

import json
import re
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hosts import CHECKOUT, Lab, Target, assert_done, eventually, eventually_gone, run_playbook, settled
from other_bundle import VERSION, make_other_bundle
from traffic import RATE, Failure, Seen, describe, none_broken, traffic

BUNDLE = CHECKOUT / "build/bundle"


def play(playbook: str, *options: str) -> None:
    """Run a playbook of the collection on the lab, where it must not fail."""
    done = run_playbook(f"playbooks/{playbook}.yml", *options)
    assert_done(done)


def none_failed(seen: Seen) -> None:
    assert seen.sent > 1000, describe(seen)
    none_broken(seen)


HELLO_SECONDS, CONNECT_SECONDS = 5.5, 2.0
"""A workload node's hellos, at the latest, open the NAT's way back; so long Envoy waits for a connection."""
QUIET_SECONDS = 6.0
"""For how long nothing may fail after each change that has been followed."""
STARTED = "stat -c %Y /proc/1"
"""When the host started."""


def outer_ports(lab: Lab) -> set[str]:
    """Those that the NAT has given to the tunnels behind it, and that their far ends answer."""
    found = lab["nat"].run("conntrack -L -p udp -s 192.168.50.11 2>/dev/null | grep -v UNREPLIED || true")
    return set(re.findall(r"sport=6080 dport=(\d+)(?: \[ASSURED\])? mark", found))


@pytest.fixture(scope="module")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_other_bundle(tmp_path_factory.mktemp("other"))


def versions(lab: Lab, node: str) -> tuple[str, set[str]]:
    """EPIC's version on a node, and the Envoys that run there."""
    epic = lab[node].run("/opt/epic/current/bin/python -c 'import epic; print(epic.__version__)'").strip()
    running = lab[node].run("pgrep -ax envoy | awk '{print $2}'; ls -l /proc/*/exe 2>/dev/null || true")
    return epic, {
        line.split("/opt/envoy/")[1].split("/")[0] for line in running.splitlines() if "/opt/envoy/" in line
    }


def run_everywhere(lab: Lab, wanted: tuple[str, set[str]]) -> None:
    """Wait until both nodes run this; Envoys that were replaced may still be draining."""

    def others() -> list[str]:
        found = {node: versions(lab, node) for node in ("epic1", "epic2")}
        return [f"{has} on {node}" for node, has in found.items() if has != wanted]

    eventually_gone(others, within=60, what=f"nothing but {wanted} on the nodes")


@pytest.mark.timeout(1500)
def test_another_version_of_epic_and_another_envoy_come_and_go_without_a_failed_request(
    lab: Lab, web: dict[str, Any], web_target: Target, other_bundle: Path
) -> None:
    other = json.loads((other_bundle / "manifest.json").read_text())["envoy"]["version"]
    pinned = json.loads((BUNDLE / "manifest.json").read_text())["envoy"]["version"]
    before = versions(lab, "epic1")[0]
    with traffic(lab, web_target) as up:
        play("upgrade", "-e", f"cluster_bundle={other_bundle}")
    run_everywhere(lab, (VERSION, {other}))
    with traffic(lab, settled(lab, web_target)) as back:
        play("upgrade", "-e", f"cluster_bundle={BUNDLE}")
    run_everywhere(lab, (before, {pinned}))
    none_failed(up)
    none_failed(back)


WORK = """
- name: Leave a mark
  ansible.builtin.copy: {content: worked, dest: /run/worked, mode: "0600"}
"""
WANTED = "conntrack"
"""A package that the lab offers, and that no node has."""


def test_maintenance_of_all_nodes_costs_no_request(lab: Lab, web_target: Target, tmp_path: Path) -> None:
    (tmp_path / "work.yml").write_text(WORK)
    work = ("-e", f"maintenance_tasks={tmp_path / 'work.yml'}", "-e", "maintenance_upgrade=true")
    with traffic(lab, web_target) as seen:
        play("maintenance", *work, "-e", json.dumps({"maintenance_packages": [WANTED]}))
    for node in ("epic1", "epic2"):
        assert (
            lab[node].run(f"cat /run/worked; dpkg-query -W -f '${{Status}}' {WANTED}")
            == "workedinstall ok installed"
        )
        lab[node].run(f"rm /run/worked; apt-get -q -y purge {WANTED}")
    none_failed(seen)
    settled(lab, web_target)
    assert len(seen.next_hops) >= 5, "each node left the router's table and came back: " + describe(seen)


@pytest.mark.timeout(900)
def test_nodes_that_start_anew_one_after_the_other_cost_no_request(lab: Lab, web_target: Target) -> None:
    before = {node: lab[node].run(STARTED) for node in ("epic1", "epic2")}
    with traffic(lab, web_target) as seen:
        play("maintenance", "-e", "maintenance_reboot=true")
    assert all(lab[node].run(STARTED) != started for node, started in before.items())
    none_failed(seen)
    settled(lab, web_target)


TOLD_SECONDS = 0.5


@dataclass(frozen=True)
class Change:
    """When the NAT forgot its ports, and when it had others for all tunnels behind it."""

    at: float
    followed: float

    def explains(self, failure: Failure) -> bool:
        """Whether the request was sent in between, and Envoy gave its connection to a pod up.

        The agents hear of the new ports after the NAT has them, and tell their Envoys.
        """
        sent_before_end = failure.kept or failure.opened <= self.followed + TOLD_SECONDS
        return sent_before_end and self.at <= failure.at <= self.followed + CONNECT_SECONDS + 0.5


def change_port(lab: Lab, then: str) -> Change:
    """Have the NAT forget its ports and the EPIC nodes do `then`; wait until all tunnels are followed."""
    ports = outer_ports(lab)
    assert ports, "the NAT knows the tunnels"
    at = time.time()
    lab["nat"].run("conntrack -F")
    for node in ("epic1", "epic2"):
        lab[node].run(then)
    eventually(
        lambda: len(outer_ports(lab) - ports) >= len(ports),
        within=at + HELLO_SECONDS + 1 - time.time(),
        what="other ports of all tunnels",
    )
    return Change(at, time.time())


def test_a_nat_that_changes_its_port_is_followed_with_the_next_hello_whatever_agents_are_told(
    lab: Lab, web_target: Target
) -> None:
    changes = []
    with traffic(lab, web_target) as seen:
        for then in ("true", "systemctl restart epic-agent", "true"):
            changes.append(change_port(lab, then))
            time.sleep(CONNECT_SECONDS + QUIET_SECONDS)
    unexplained = [f for f in seen.failures if not any(change.explains(f) for change in changes)]
    assert not unexplained, describe(seen)
    assert not seen.dropped, describe(seen)
    away = sum(change.followed - change.at for change in changes)
    alone = [failure for failure in seen.failures if not failure.kept]
    # the pod that is not behind the NAT is as good as ever
    assert len(alone) < 0.65 * RATE * away, f"{away:.1f} s without: " + describe(seen)
    assert seen.answered > RATE * len(changes) * QUIET_SECONDS, describe(seen)


def test_what_comes_and_goes_in_the_routers_table_breaks_no_connection(lab: Lab, web_target: Target) -> None:
    with traffic(lab, web_target) as seen:
        for node in ("epic1", "epic2"):
            lab[node].run("systemctl stop bird")
            settled(lab, web_target, 1)
            lab[node].run("systemctl start bird")
            settled(lab, web_target)
    assert len(seen.moved) > 50, "the router led connections elsewhere: " + describe(seen)
    none_failed(seen)


def test_agents_that_start_again_break_no_connection(lab: Lab, web_target: Target) -> None:
    with traffic(lab, web_target) as seen:
        for node in ("epic1", "epic2"):
            lab[node].run("systemctl restart epic-agent")
            settled(lab, web_target)
            # connections meet the other node's programs while its agent has just begun
            lab[node].run("systemctl restart bird")
            settled(lab, web_target)
    none_failed(seen)


# A certificate for the request on standard input that ends in half a minute.
SIGN_SHORT = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from epic.pki import operations
pki = operations.Pki(Path("/etc/epic/pki"), datetime.now(UTC))
made = operations.sign(pki, sys.argv[1], sys.stdin.buffer.read(), timedelta(seconds=30))
print(made["certificate"])
"""


def give_short_certificate(lab: Lab, node: str) -> None:
    """Its agent has a certificate that ends soon."""
    asked = json.loads(lab[node].run(f"/opt/epic/bin/epic-pki csr --name {node} --renew"))["request"]
    command = f"/opt/epic/current/bin/python -c {shlex.quote(SIGN_SHORT)} {node}"
    made = lab["epic1"].run(command, stdin=asked)
    lab[node].run("/opt/epic/bin/epic-pki install", stdin=made)
    lab[node].run("systemctl restart epic-agent")


def life(lab: Lab, node: str) -> float:
    """For how many seconds the agent's certificate is good."""
    shown = json.loads(lab[node].run("/opt/epic/bin/epic-pki show"))
    return float(shown["not_after"]) - time.time()


def test_agents_renew_their_certificates_without_a_failed_request(lab: Lab, web_target: Target) -> None:
    with traffic(lab, web_target) as seen:
        for node in ("epic1", "epic2"):
            give_short_certificate(lab, node)
            assert life(lab, node) < 60
        for node in ("epic1", "epic2"):
            eventually(lambda n=node: life(lab, n) > 3600, within=45, what=f"another certificate on {node}")
    none_failed(seen)
