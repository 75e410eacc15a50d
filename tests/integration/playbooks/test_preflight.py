# SPDX-License-Identifier: Apache-2.0
"""The playbook `preflight` on hosts whose facts are played: every host is told what is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from played_roles import CLIENTS, GROUPS, ROOT, make_site, play, play_module, write_inventory

PLAYED = """
import time
from ansible.module_utils.basic import AnsibleModule
names = ("distributions", "python", "python_version", "kernel", "tunnels", "interfaces", "ports", "asked_at")
module = AnsibleModule({name: {"type": "raw"} for name in (*names, "space")}, supports_check_mode=True)
played = module.params["space"]
now = time.time() + played.get("ahead", 0)
module.exit_json(faults=played.get("faults", []), asked_at=float(module.params["asked_at"]), now=now)
"""
HOUR = 3600
HOSTS = {name for names in GROUPS.values() for name in names}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The collection with the real role `base`, and a module `preflight` that says what it is told."""
    make_site(tmp_path, "")
    collection = tmp_path / "collections/ansible_collections/epic/gateway"
    (collection / "roles/base").rename(tmp_path / "played")
    (collection / "roles/base").symlink_to(ROOT / "roles/base")
    play_module(tmp_path, "preflight", PLAYED)
    return tmp_path


def told(site: Path, played: dict[str, dict[str, object]], *arguments: str) -> dict[str, str]:
    """What is wrong with hosts, by name."""
    write_inventory(site, {host: {"base_space": facts} for host, facts in played.items()})
    variables = ("-e", '{"cluster_management_networks": ["192.0.2.0/24"]}')
    done = play(site, "preflight", *variables, "-e", "gateway_node_underlay_interface=lo",
                "-e", "linux_controller_underlay_interface=lo", *arguments)  # fmt: skip
    recap = dict(re.findall(r"^(\S+) +: ok=\d+ +changed=0 .* failed=(\d)", done.stdout, re.MULTILINE))
    assert set(recap) == HOSTS, done.stdout
    found = dict(re.findall(r'^fatal: \[(\S+)\].*"msg": "(.*?)"', done.stdout, re.MULTILINE))
    assert {host for host, failed in recap.items() if failed != "0"} == set(found)
    assert (done.returncode == 0) is not bool(found)
    return found


def test_fit_hosts_are_told_nothing_and_nothing_is_changed(site: Path) -> None:
    assert told(site, {}) == {}


def test_each_host_is_told_all_that_is_wrong_with_it(site: Path) -> None:
    played = {"epic2": {"faults": ["the kernel is old"], "ahead": HOUR}, CLIENTS[0]: {"ahead": -HOUR}}
    found = told(site, played)
    assert set(found) == set(played)
    assert "- the kernel is old" in found["epic2"]
    assert re.search(
        r"the clock is (3600|35\d\d) s ahead of that of control; keep it within 10 s", found["epic2"]
    )
    assert re.search(r"the clock is (3600|35\d\d) s behind that of control", found[CLIENTS[0]])


def test_all_others_are_off_where_the_control_host_is_and_by_less_than_they_may_none_is(site: Path) -> None:
    off = {"control": {"ahead": 2 * HOUR}, "epic1": {"ahead": HOUR}}
    assert set(told(site, off)) == HOSTS - {"control"}
    assert told(site, off, "-e", "base_clock_tolerance=7300") == {}
