# SPDX-License-Identifier: Apache-2.0
"""Removing the lab: nothing of it stays, whatever state it was in, and nothing else goes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from remains import remains
from small_lab import NAME, ROOT, SmallLab

pytestmark = pytest.mark.root


def nspawn_locks() -> set[str]:
    return {path.name for path in Path("/run/systemd/nspawn/locks").glob("*")}


def test_a_whole_lab_is_removed(small: SmallLab) -> None:
    locks = nspawn_locks()
    assert small.clean().changed == 1
    assert remains(NAME, "10.97.0.") == []
    assert not small.ssh.exists()
    assert len(locks - nspawn_locks()) == 2


def test_ansibles_kept_connections_are_closed(small: SmallLab) -> None:
    inventory = (
        f"left ansible_host=10.97.0.2 ansible_user=root ansible_ssh_common_args='-F {small.ssh}/config' "
    )
    inventory += f"ansible_control_path_dir=/run/epic-{NAME}/ssh\n"
    hosts = small.topology.with_name("hosts.ini")
    hosts.write_text(inventory)
    ping = [str(ROOT / ".venv/bin/ansible"), "-i", str(hosts), "left", "-m", "ansible.builtin.ping"]
    assert "pong" in subprocess.run(ping, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert small.clean().changed == 1
    assert remains(NAME, "10.97.0.") == []


def test_a_half_built_lab_is_removed(small: SmallLab) -> None:
    (small.cgroup("left") / "cgroup.kill").write_text("1")
    (small.cgroup("right") / "cgroup.freeze").write_text("1")
    subprocess.run(["ip", "link", "delete", f"{NAME}-left"], check=True)
    subprocess.run(["umount", "--lazy", f"/run/epic-{NAME}/hosts/right/root"], check=True)
    shutil.rmtree(small.ssh)
    assert small.clean().changed == 1
    assert remains(NAME, "10.97.0.") == []


def test_a_lab_whose_files_are_gone_is_removed(small: SmallLab) -> None:
    subprocess.run(["umount", "--lazy", f"/run/epic-{NAME}"], check=True)
    assert small.clean().changed == 1
    assert remains(NAME, "10.97.0.") == []


def test_what_others_run_in_the_labs_namespaces_ends(small: SmallLab) -> None:
    watcher = subprocess.Popen(["ip", "netns", "exec", f"{NAME}-left", "sleep", "600"])
    assert small.clean().changed == 1
    assert watcher.wait(timeout=5) == -9


def test_a_check_says_what_would_go_and_leaves_it(small: SmallLab) -> None:
    play = small.clean("--check", "--diff")
    assert play.changed == 1
    assert "-host left" in play.output
    assert small.boot().changed == 0


def test_there_may_be_no_lab(small: SmallLab) -> None:
    small.clean()
    assert small.clean().changed == 0


def test_a_removed_lab_can_be_booted_again(small: SmallLab) -> None:
    small.clean()
    assert small.boot().changed == 1
    assert small.run("left", "hostname") == "left"
