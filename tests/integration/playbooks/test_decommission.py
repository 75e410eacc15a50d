# SPDX-License-Identifier: Apache-2.0
"""The playbook `decommission` against an API that plays a cluster: what is refused, order, force.

What removes EPIC from a host is played: it says on which host it was.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_api import NODES, Cluster, serve
from played_roles import CLIENTS, make_site, play, play_module, write_inventory

CLEANUP = """
from pathlib import Path
from urllib.request import urlopen
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule({"key_files": {"type": "list", "elements": "path"}}, supports_check_mode=True)
# each host has runs' keys of a user with its name
(key_file,) = module.params["key_files"]
if not module.check_mode:
    urlopen("API/deeds/" + Path(key_file).parts[2] + "/cleanup").read()
module.exit_json(changed=True)
"""


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def site(tmp_path: Path, cluster: Cluster) -> Iterator[Path]:
    with serve(cluster) as url:
        make_site(tmp_path, url)
        play_module(tmp_path, "host_cleanup", CLEANUP.replace("API", url))
        hosts = ("control", *NODES, *CLIENTS)
        write_inventory(tmp_path, {name: {"cluster_run_user": name} for name in hosts})
        yield tmp_path


def decommission(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return play(site, "decommission", *arguments)


def test_hosts_that_are_not_named_are_none(site: Path, cluster: Cluster) -> None:
    done = decommission(site)
    assert done.returncode != 0
    assert "Name the hosts to decommission" in done.stdout
    assert cluster.done == []


def test_a_host_is_cleaned_when_the_cluster_has_let_go_of_it_and_before_the_next(
    site: Path, cluster: Cluster
) -> None:
    done = decommission(site, "-e", f"decommission_hosts={','.join(NODES)},{CLIENTS[0]}")
    assert done.returncode == 0, done.stdout
    nodes = [[f"{node} delete", f"{node} gone", f"{node} cleanup"] for node in NODES]
    assert cluster.done == [*nodes[0], *nodes[1], f"{CLIENTS[0]} cleanup"]


def test_a_check_lets_go_of_nothing(site: Path, cluster: Cluster) -> None:
    done = decommission(site, "--limit", "epic2", "--check")
    assert done.returncode == 0, done.stdout
    assert "changed=0" not in done.stdout
    assert cluster.done == []


def test_a_cluster_that_does_not_let_go_in_time_ends_it(site: Path, cluster: Cluster) -> None:
    cluster.removed = {"epic1": 1000}
    cluster.delete = lambda *_: None  # type: ignore[method-assign]
    done = decommission(site, "--limit", ",".join(NODES), "-e", "decommission_timeout=1")
    assert done.returncode != 0
    assert "is not as asked for after 1 s" in done.stdout
    assert "To go on all the same, set decommission_force=true" in " ".join(done.stdout.split())
    assert cluster.done == []


def test_a_node_that_is_lost_is_forgotten(site: Path, cluster: Cluster) -> None:
    done = decommission(site, "--limit", "epic2", "-e", "decommission_force=true")
    assert done.returncode == 0, done.stdout
    assert cluster.done == ["epic2 forget", "epic2 cleanup"]


def test_the_control_plane_ends_only_where_that_is_said(site: Path, cluster: Cluster) -> None:
    done = decommission(site, "--limit", "control")
    assert done.returncode != 0
    assert "control runs the control plane" in done.stdout
    assert cluster.done == []
    done = decommission(site, "--limit", "control", "-e", "decommission_control_plane=true")
    assert done.returncode == 0, done.stdout
    assert cluster.done == ["control cleanup"]
