# SPDX-License-Identifier: Apache-2.0
"""Hosts of the lab: what they offer, and how a lab comes back to what its topology says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from small_lab import NAME, SmallLab, call

pytestmark = pytest.mark.root


def test_hosts_are_whole_systems_without_failed_units(small: SmallLab) -> None:
    for host in ("left", "right"):
        assert small.run(host, "systemctl is-system-running --wait") == "running"


def test_hosts_reach_each_other_by_name_over_their_link(small: SmallLab) -> None:
    assert "172.31.0.2" in small.run("left", "ping -c 1 -W 2 right")
    assert small.run("left", "ip -4 -o route get 10.0.0.1").startswith("10.0.0.1 via 172.31.0.2 dev up0")


def test_hosts_have_what_epic_needs_of_a_kernel(small: SmallLab) -> None:
    assert small.run("left", "findmnt -n -o FSTYPE /sys/fs/bpf") == "bpf"
    assert small.run("left", "sysctl -n net.ipv4.ip_forward") == "1"
    assert small.run("right", "sysctl -n net.ipv4.ip_forward") == "0"


def test_a_host_is_plain_debian_but_for_its_packages_in_the_topology(small: SmallLab) -> None:
    programs = ("bird", "bpftool", "curl", "frr", "nft", "tcpdump")
    there = "for p in {}; do command -v $p /usr/lib/frr/$p || true; done".format(" ".join(programs))
    assert small.run("left", there) == ""
    assert small.run("right", there) == "/usr/sbin/nft\n/usr/bin/tcpdump"


def test_a_host_installs_the_roles_packages_from_the_image_and_nothing_else(small: SmallLab) -> None:
    install = "apt-get -qq update; apt-get -qq install bird2 >/dev/null 2>&1; command -v bird birdc"
    assert small.run("left", install) == "/usr/sbin/bird\n/usr/sbin/birdc"
    assert "Unable to locate package cowsay" in small.run("left", "apt-get install cowsay 2>&1 || true")
    small.boot(lab_power_cycle=["left"])


def test_firewalls_do_not_run_unless_the_topology_says_so(small: SmallLab) -> None:
    assert small.run("right", "systemctl is-active nftables || true") == "inactive"


def test_a_host_has_all_processors_whoever_starts_it(small: SmallLab) -> None:
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(own)})
    try:
        small.boot(lab_power_cycle=["left"])
    finally:
        os.sched_setaffinity(0, own)
    assert int(small.run("left", "nproc")) >= len(own)


def test_an_unknown_package_of_the_topology_is_named(small: SmallLab, pair: dict[str, Any]) -> None:
    pair["hosts"]["right"]["packages"] = ["no-such-package"]
    small.write(pair)
    play = small.boot()
    assert play.status != 0
    assert "Unable to locate package no-such-package" in play.output


def test_a_host_has_no_way_out_of_the_lab(small: SmallLab) -> None:
    assert small.run("right", "ip route show default") == ""
    assert small.run("right", "test -e /etc/resolv.conf || echo none") == "none"


def test_a_second_run_and_a_check_change_nothing(small: SmallLab) -> None:
    assert small.boot().changed == 0
    assert small.boot("--check").changed == 0


def test_a_killed_host_comes_back_with_its_disk_and_a_new_kernel_state(small: SmallLab) -> None:
    small.run("left", "touch /root/kept; ip route add blackhole 198.51.100.1/32")
    (small.cgroup("left") / "cgroup.kill").write_text("1")
    play = small.boot("--diff")
    assert "-left: stopped" in play.output
    assert play.changed == 1
    assert small.run("left", "ls /root/kept; ip route show type blackhole") == "/root/kept"
    assert "1 received" in small.run("right", "ping -c 1 -W 2 left")


def test_a_frozen_host_runs_on(small: SmallLab) -> None:
    before = small.run("left", "systemctl show -p ExecMainPID ssh; touch /run/still-there")
    (small.cgroup("left") / "cgroup.freeze").write_text("1")
    assert "-left: frozen" in small.boot("--diff").output
    assert small.run("left", "systemctl show -p ExecMainPID ssh; ls /run/still-there").startswith(before)


def test_a_cut_link_is_joined_again(small: SmallLab) -> None:
    subprocess.run(["ip", "-n", f"{NAME}-left", "link", "delete", "up0"], check=True)
    assert small.boot().changed == 1
    assert "1 received" in small.run("left", "ping -c 1 -W 2 right")


def test_a_reboot_asked_for_inside_happens(small: SmallLab) -> None:
    before = small.run("right", "cat /proc/sys/kernel/random/boot_id; touch /root/kept")
    subprocess.run(
        ["ssh", "-F", str(small.ssh / "config"), "right", "reboot"], capture_output=True, check=False
    )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        command = [
            "ssh",
            "-F",
            str(small.ssh / "config"),
            "right",
            "cat /proc/sys/kernel/random/boot_id; ls /root/kept",
        ]
        after = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        if after.strip() and before not in after:
            break
        time.sleep(0.1)
    assert "/root/kept" in after
    assert before not in after


def test_power_is_cut_on_request(small: SmallLab) -> None:
    small.run("left", "touch /run/volatile")
    assert small.boot(lab_power_cycle=["left"]).changed == 1
    assert small.run("left", "ls /run/volatile 2>/dev/null || echo gone") == "gone"


def test_only_the_host_whose_definition_changed_gets_a_new_disk(
    small: SmallLab, pair: dict[str, Any]
) -> None:
    for host in ("left", "right"):
        small.run(host, "touch /root/kept")
    pair["hosts"]["left"]["sysctls"]["net.ipv4.ip_forward"] = 0
    small.write(pair)
    assert "+left: running (new disk)" in small.boot("--diff").output
    assert small.run("left", "ls /root/kept 2>/dev/null || echo gone") == "gone"
    assert small.run("right", "ls /root/kept") == "/root/kept"


def test_a_host_that_left_the_topology_is_removed(small: SmallLab, pair: dict[str, Any]) -> None:
    del pair["hosts"]["right"]
    pair["hosts"]["left"].pop("gateway")
    small.write({**pair, "links": []})
    assert small.boot().changed == 1
    assert not small.cgroup("right").exists()
    assert not Path(f"/run/netns/{NAME}-right").exists()


def test_a_wrong_topology_is_refused_before_anything_happens(small: SmallLab, pair: dict[str, Any]) -> None:
    pair["links"][0]["lefd"] = pair["links"][0].pop("left")
    small.write(pair)
    play = small.boot()
    assert play.status != 0
    assert "links[0]: there is no host 'lefd'; hosts are left, right" in play.output
    small.write({**pair, "links": [{"left": "up0 172.31.0.1/24", "right": "up0 172.31.0.2/24"}]})
    assert small.boot().changed == 0


def test_a_host_that_does_not_boot_ends_with_its_console_log(small: SmallLab, tmp_path: Path) -> None:
    image = tmp_path / "image-broken"
    for part in ("usr/bin", "usr/lib", "etc", "root"):
        (image / part).mkdir(parents=True)
    (image / "etc/os-release").write_text("ID=broken\n")
    lab = {"name": "brk", "ssh_directory": f"{tmp_path}/ssh"}
    topology = {
        "management": {"network": "10.96.0.0/24", "controller": "10.96.0.1"},
        "hosts": {"only": {"management": "10.96.0.2"}},
    }
    try:
        output = module({**lab, "image": str(image), "topology": topology})
        assert "the host only ended with status" in output
        assert "/run/epic-brk/hosts/only/console.log" in output
        assert "init" in output
    finally:
        module({**lab, "state": "absent"})
    assert not Path("/run/epic-brk").exists()


def module(options: dict[str, Any]) -> str:
    """Run the module lab_hosts by itself; what it says."""
    ansible = str(Path(sys.executable).with_name("ansible"))
    result = call([ansible, "localhost", "-m", "epic.gateway.lab_hosts", "-a", json.dumps(options)])
    return result.stdout + result.stderr
