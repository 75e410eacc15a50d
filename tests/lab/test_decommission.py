# SPDX-License-Identifier: Apache-2.0
"""Hosts leave the cluster that `make demo` built, and it goes on. Run before the lab itself is removed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from small_lab import ROOT

from epic.client import EpicClient

sys.path.insert(0, str(ROOT / "tests/e2e"))
from hosts import CREDENTIAL, INVENTORY, Lab, Target, eventually, load_lab, settled
from traffic import describe, none_broken, traffic

pytestmark = pytest.mark.root

EPICCTL = Path(sys.executable).parent / "epicctl"
NEWCOMER_SECONDS = 5
RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)
# The package of BIRD keeps its directory, and a control socket of a dead BIRD is in /run/bird.
# A timer starts the firewall's check every few seconds: under way or over, it is no trace but by its files.
TRACES = """
systemctl list-units --all --plain --no-legend 'epic-*' 'bird*' | awk '
  !/ not-found / && $1 != "epic-firewall-check.service" {print $1, $3}'
systemctl list-unit-files --no-legend 'epic-*'
ip netns list
ip -o link show | grep epg
ip route show table all protocol 50
ip rule show pref 100
ip -6 rule show pref 100
nft list tables | grep epic
tc filter show dev up0 ingress
tc filter show dev up0 egress
ls -d /etc/epic /opt/epic /opt/envoy /var/lib/epic /run/epic /usr/libexec/epic /sys/fs/bpf/epic
ls /etc/bird/bird.conf
find /etc -iname '*epic*'
grep -rl 'Managed by EPIC' /etc
getent passwd epic
getent group epic epic-envoy
grep epic-runs /root/.ssh/authorized_keys
"""

# What instances are and have on a node, its agent's programs and files aside.
INSTANCES = """
systemctl list-units --all --plain --no-legend 'epic-envoy@*' 'epic-netns@*' | grep -v ' not-found '
ip netns list
ip -o link show | grep epg
ip route show table all protocol 50
ls /etc/epic/gateways
"""
PROXIES = "/api/epic/accounts/shop/proxies"


@dataclass(frozen=True)
class Played:
    """What a playbook printed, and for each host how many tasks changed something."""

    text: str
    changed: dict[str, int]


def play(playbook: str, *options: str) -> Played:
    """Run a playbook on the lab, where it must not fail."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(INVENTORY), playbook, *options],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    recap = RECAP.findall(done.stdout)
    assert recap, done.stdout[-4000:] + done.stderr[-2000:]
    assert not any(int(lost) + int(failed) for _, _, lost, failed in recap), done.stdout[-6000:]
    return Played(done.stdout, {host: int(changed) for host, changed, _, _ in recap})


def decommission(host: str, *options: str) -> int:
    """How many tasks changed something."""
    return play("playbooks/decommission.yml", "--limit", host, *options).changed[host]


def traces(lab: Lab, host: str) -> list[str]:
    return lab[host].run(TRACES, check=False).splitlines()


def epicctl(*arguments: str) -> str:
    command = [str(EPICCTL), "--config", str(CREDENTIAL), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def lab() -> Lab:
    return load_lab()


@pytest.fixture(scope="module")
def target(lab: Lab) -> Target:
    """Where the requests of the demo go."""
    (line,) = [row for row in epicctl("get", "gateways", "-A", "shop").splitlines() if " web " in row]
    found = Target(re.findall(r"203\.0\.113\.\d+", line)[0], "shop.example.net")
    assert {r.status for r in lab.request(found, 20)} == {200}
    return found


@pytest.mark.parametrize(("host", "packages"), [("node2", []), ("epic2", ["bird2"])])
def test_a_host_leaves_without_a_failed_request_and_keeps_nothing(
    lab: Lab, target: Target, host: str, packages: list[str]
) -> None:
    before = traces(lab, host)
    assert before
    options = ("-e", json.dumps({"decommission_packages": packages}))
    assert decommission(host, "--check", *options) > 0
    assert traces(lab, host) == before
    with traffic(lab, target) as seen:
        assert decommission(host, *options) > 0
    assert seen.answered
    none_broken(seen)
    assert traces(lab, host) == []
    left = lab[host].run("dpkg-query -W -f '${Package} ${Status}\\n'").splitlines()
    assert not [name for name in packages if f"{name} install ok installed" in left]
    assert decommission(host, *options) == 0


def test_a_check_says_what_a_run_would_make_of_a_bare_host_and_makes_nothing(lab: Lab) -> None:
    said = play("site.yml", "--limit", "epic1,epic2", "--check", "--diff")
    assert said.changed["epic2"] > 0
    for name in ("/etc/epic/agent.yaml", "epic-agent.service", "bird.conf"):
        assert re.search(rf"^\+\+\+ after: .*{re.escape(name)}", said.text, re.MULTILINE), name
    assert traces(lab, "epic2") == []


def test_the_cluster_knows_the_node_no_more_and_a_later_run_adds_it_without_a_failed_request(
    lab: Lab, target: Target
) -> None:
    nodes = epicctl("get", "nodes")
    assert "epic1" in nodes
    assert "epic2" not in nodes
    with traffic(lab, settled(lab, target, 1)) as seen:
        assert play("site.yml", "--limit", "epic1,epic2").changed["epic2"] > 0
        settled(lab, target, 2)
        # the newcomer's first connections are among those that count
        time.sleep(NEWCOMER_SECONDS)
    none_broken(seen)
    assert [count for _, count in seen.next_hops] == [1, 2], describe(seen)
    assert seen.moved, "the router led connections to the newcomer that it had not begun"
    assert "epic2" in epicctl("get", "nodes")
    assert lab["epic2"].run("systemctl is-active epic-agent").strip() == "active"


@pytest.fixture
def api() -> EpicClient:
    credential = yaml.safe_load(CREDENTIAL.read_text())
    names = ("server", "username", "password", "ca-file")
    return EpicClient(*(credential[name] for name in names))


@contextmanager
def gateway(api: EpicClient, address: str | None = None) -> Iterator[str]:
    """The address of a gateway for as long as the block runs; it may ask for one."""
    uid = str(uuid.uuid4())
    wanted = {} if address is None else {"addresses": [{"type": "IPAddress", "value": address}]}
    listeners = [{"name": "http", "port": 80, "protocol": "HTTP"}]
    spec = {
        "clientRef": {"clusterID": "lab", "namespace": "lab", "name": "lab", "uid": uid},
        "display-name": "lab",
        "public-ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        "gateway": {"gatewayClassName": "epic", "listeners": listeners} | wanted,
    }
    api.post("/api/epic/accounts/shop/groups/http/proxies", {"proxy": {"spec": spec}})
    try:
        yield str(api.get(f"{PROXIES}/{uid}")["proxy"]["spec"]["public-address"])
    finally:
        api.delete(f"{PROXIES}/{uid}")
        eventually(
            lambda: uid not in [p["metadata"]["name"] for p in api.get(PROXIES)["items"]],
            within=30,
            what="the end of the gateway",
        )


def test_a_node_that_is_removed_while_its_envoys_run_has_let_go_of_their_addresses_by_itself(
    lab: Lab, api: EpicClient
) -> None:
    """Its agent was told: nothing else has been on the host when the address is another gateway's."""
    with gateway(api) as address:
        settled(lab, Target(address, "none.example.net"), 2)
        assert lab["epic2"].run(f"ip route show exact {address}/32 proto 50 type blackhole")
        epicctl("node", "remove", "epic2")
        assert lab["epic2"].run(INSTANCES, check=False).splitlines() == []
        assert lab["epic2"].run("systemctl is-active epic-agent").strip() == "active"
    with gateway(api, address) as again:
        assert again == address
        target = settled(lab, Target(address, "none.example.net"), 1)
        assert "via 172.30.11.2 " in lab["router"].run(f"ip route show {address}")
        assert {reply.status for reply in lab.request(target, 20)} == {404}, "an Envoy without routes"
    decommission("epic2")
    assert traces(lab, "epic2") == []


def test_the_control_host_is_not_decommissioned_by_mistake() -> None:
    with pytest.raises(AssertionError, match="runs the control plane"):
        decommission("epic1")
    assert "epic1" in epicctl("get", "nodes")
