# SPDX-License-Identifier: Apache-2.0
"""How careful the playbook `site` is with hosts that fail, as the command line says it.

What changes hosts, the roles of the cluster, is played: each says on which host it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_api import NODES, Cluster, serve
from played_roles import CLIENTS, make_site, play, write_inventory

HOSTS = {"control", *NODES, *CLIENTS}


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def site(tmp_path: Path, cluster: Cluster) -> Iterator[Path]:
    with serve(cluster) as url:
        make_site(tmp_path, url)
        yield tmp_path


def had(cluster: Cluster, role: str) -> set[str]:
    """The hosts that a role was on."""
    return {word.split()[0] for word in cluster.done if word.split()[1] == role}


def test_nodes_are_built_at_once_or_as_many_as_is_said(site: Path, cluster: Cluster) -> None:
    assert play(site, "site").returncode == 0
    at_once = [word for word in cluster.done if word.split()[1] in ("router", "gateway_node")]
    assert {word.split()[1] for word in at_once[:2]} == {"router"}
    assert had(cluster, "base") == HOSTS
    cluster.done.clear()
    done = play(site, "site", "-e", "site_serial=1")
    assert done.returncode == 0, done.stdout
    one = [word for word in cluster.done if word.split()[1] in ("router", "gateway_node")]
    assert one == [f"{node} {role}" for node in NODES for role in ("router", "gateway_node")]
    clients = [word for word in cluster.done if word.endswith("linux_controller")]
    assert clients == [f"{client} linux_controller" for client in CLIENTS]


def test_too_many_nodes_that_fail_end_it(site: Path, cluster: Cluster) -> None:
    cluster.fails = "epic1 router"
    assert play(site, "site").returncode != 0
    assert had(cluster, "gateway_node") == set()
    cluster.done.clear()
    assert play(site, "site", "-e", "site_max_fail_percentage=50").returncode != 0
    assert had(cluster, "gateway_node") == {"epic2"}
    assert had(cluster, "linux_controller") == set(CLIENTS)


@pytest.mark.parametrize("away", [False, True], ids=["fails", "is away"])
def test_a_host_that_cannot_be_prepared_stops_all_unless_that_is_said(
    site: Path, cluster: Cluster, away: bool
) -> None:
    if away:
        ssh = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
        write_inventory(site, {"client1": ssh})
    cluster.fails = "client1 base"
    stopped = play(site, "site")
    assert stopped.returncode != 0
    assert had(cluster, "control_plane") == had(cluster, "gateway_node") == set()
    if away:
        assert cluster.done == []
        assert "Nothing is begun, for client1 cannot be reached" in " ".join(stopped.stdout.split())
    cluster.done.clear()
    assert play(site, "site", "-e", "site_any_errors_fatal=false").returncode != 0
    assert had(cluster, "control_plane") == {"control"}
    assert had(cluster, "gateway_node") == set(NODES)
    assert had(cluster, "linux_controller") == set(CLIENTS) - {"client1"}
