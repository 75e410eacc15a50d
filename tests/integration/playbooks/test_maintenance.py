# SPDX-License-Identifier: Apache-2.0
"""The playbook `maintenance` against an API that plays a cluster of two nodes: order, waiting, errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest
from cluster_api import NODES, Cluster, serve

ROOT = Path(__file__).parents[3]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def api(cluster: Cluster) -> Iterator[str]:
    with serve(cluster) as url:
        yield url


@pytest.fixture
def site(tmp_path: Path, api: str) -> Path:
    """A folder with an inventory of two nodes on this machine, and how they reach the API."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {"hosts": {name: {} for name in NODES}}
    inventory = {"all": {"vars": local, "children": {"epic_control": hosts, "epic_nodes": hosts}}}
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))
    (tmp_path / "user.yaml").write_text("username: admin\npassword: secret\n")
    options = {
        "url": api,
        "credential_file": str(tmp_path / "user.yaml"),
        "ca_file": certifi.where(),
    }
    variables = {"_maintenance_api": options, "ansible_become": False}
    variables |= {"maintenance_ready_timeout": 60, "_maintenance_pause": 0.2}
    (tmp_path / "variables.json").write_text(json.dumps(variables))
    return tmp_path


def maintain(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment |= {
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        "ANSIBLE_HOME": str(site / ".ansible"),
    }
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "-i",
        "hosts.json",
        "-e",
        "@variables.json",
    ]
    return subprocess.run(
        [*command, *arguments, "epic.gateway.maintenance"],
        cwd=site, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_one_node_is_drained_worked_on_and_back_before_the_next_is_touched(
    site: Path, cluster: Cluster
) -> None:
    done = maintain(site, "-e", f"maintenance_command='echo worked >>{site}/log'")
    assert done.returncode == 0, done.stdout
    assert cluster.done == [
        *("epic1 drain", "epic1 Withdrawn", "epic1 resume", "epic1 Serving"),
        *("epic2 drain", "epic2 Withdrawn", "epic2 resume", "epic2 Serving"),
    ]
    assert (site / "log").read_text() == "worked\n" * 2


def test_a_node_is_not_back_before_a_router_hears_it(site: Path, cluster: Cluster) -> None:
    cluster.unheard["epic1"] = 9
    done = maintain(site)
    assert done.returncode == 0, done.stdout
    assert cluster.unheard["epic1"] < 0
    assert cluster.done[0] == "epic1 drain"


def test_no_node_is_drained_while_no_router_hears_another(site: Path, cluster: Cluster) -> None:
    cluster.unheard["epic2"] = 1000
    done = maintain(site, "-e", '{"maintenance_ready_timeout": 1, "_maintenance_pause": 0.5}')
    assert done.returncode != 0
    assert cluster.done == []
    assert "other nodes are not whole after 1 s: epic2" in done.stdout


def test_nodes_are_drained_though_no_router_hears_others_where_that_is_said(
    site: Path, cluster: Cluster
) -> None:
    cluster.unheard = dict.fromkeys(NODES, 1000)
    done = maintain(site, "-e", "maintenance_unheard_ok=true")
    assert done.returncode == 0, done.stdout
    assert cluster.unheard_ok
    assert [said for said in cluster.done if said.endswith("Serving")] == ["epic1 Serving", "epic2 Serving"]


def test_work_that_fails_leaves_the_node_drained_and_the_next_alone(site: Path, cluster: Cluster) -> None:
    done = maintain(site, "-e", "maintenance_command=false")
    assert done.returncode != 0
    assert cluster.done == ["epic1 drain", "epic1 Withdrawn"]
    assert "epic1 is left cordoned" in done.stdout
    assert "epicctl node uncordon epic1" in done.stdout


def test_no_node_is_drained_while_another_does_not_serve(site: Path, cluster: Cluster) -> None:
    cluster.instances["epic2"] = ["lost"]
    done = maintain(site, "-e", '{"maintenance_ready_timeout": 1, "_maintenance_pause": 0.5}')
    assert done.returncode != 0
    assert cluster.done == []
    assert "other nodes are not whole after 1 s: epic2" in done.stdout


def test_no_node_is_drained_before_another_has_reported_since(site: Path, cluster: Cluster) -> None:
    cluster.silent.add("epic2")
    done = maintain(site, "-e", '{"maintenance_ready_timeout": 1, "_maintenance_pause": 0.5}')
    assert done.returncode != 0
    assert cluster.done == []
    assert "other nodes are not whole after 1 s: epic2" in done.stdout


def test_check_mode_drains_nothing(site: Path, cluster: Cluster) -> None:
    done = maintain(site, "--check", "--limit", "epic1", "-e", "maintenance_command=false")
    assert done.returncode == 0, done.stdout
    assert cluster.done == []
    assert "changed=0" not in done.stdout


def test_a_node_that_cannot_be_started_anew_from_here_is_not_drained(site: Path, cluster: Cluster) -> None:
    done = maintain(site, "--limit", "epic1", "-e", "maintenance_reboot=true")
    assert done.returncode != 0
    assert cluster.done == []
    assert "maintenance_reboot cannot start epic1 anew, for Ansible runs on it" in done.stdout
