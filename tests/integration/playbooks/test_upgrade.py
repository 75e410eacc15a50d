# SPDX-License-Identifier: Apache-2.0
"""The playbook `upgrade` against an API that plays a cluster of two nodes: order, waiting, errors.

What changes hosts, the roles of the cluster, is played too: each says on which host it was.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_api import NODES, Cluster, serve
from played_roles import CLIENTS, PLAYED, make_site, play

UPGRADED = [f"epic1 {role}" for role in ("base", "firewall", "router", "gateway_node", "restart")]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def site(tmp_path: Path, cluster: Cluster) -> Iterator[Path]:
    with serve(cluster) as url:
        make_site(tmp_path, url)
        yield tmp_path


def upgrade(site: Path, **variables: object) -> subprocess.CompletedProcess[str]:
    return play(site, "upgrade", "-e", json.dumps(variables))


def begun(cluster: Cluster) -> set[str]:
    """The hosts that are changed: they have more than what comes beside what runs."""
    return {word.split()[0] for word in cluster.done if word.split()[1] in PLAYED}


def test_control_plane_nodes_and_clients_follow_one_after_the_other(site: Path, cluster: Cluster) -> None:
    cluster.envoys = ["1.40.0", "1.40.0", "1.41.0"]
    done = upgrade(site)
    assert done.returncode == 0, done.stdout
    hosts = ("control", *NODES)
    prepared = 2 * len(hosts)
    assert sorted(cluster.done[:prepared]) == sorted(f"{h} {w}" for h in hosts for w in ("bundle", "envoy"))
    rest = cluster.done[prepared:]
    assert rest[:3] == ["control base", "control firewall", "control control_plane"]
    # the next is begun when the former serves again, which its restart had ended
    nodes = [*UPGRADED, "epic1 Serving"]
    assert rest[3:15] == nodes + [word.replace("epic1", "epic2") for word in nodes]
    assert rest[15:23] == [f"{client} {role}" for client in CLIENTS for role in ("base", "linux_controller")]
    assert rest[23:] == ["gateway has 1.40.0"] * 2 + ["gateway has 1.41.0"]


def test_a_node_that_fails_ends_it_and_the_next_is_not_touched(site: Path, cluster: Cluster) -> None:
    cluster.fails = "epic1 router"
    done = upgrade(site)
    assert done.returncode != 0
    assert begun(cluster) == {"control", "epic1"}
    said = " ".join(done.stdout.split())
    assert "Do router: " in said
    assert "epic1 is not upgraded, and nodes after it are not touched" in said
    assert "left drained" not in said


def test_a_control_plane_that_fails_ends_it_before_any_node(site: Path, cluster: Cluster) -> None:
    cluster.fails = "control control_plane"
    assert upgrade(site).returncode != 0
    assert begun(cluster) == {"control"}


def test_no_node_is_begun_while_another_does_not_serve(site: Path, cluster: Cluster) -> None:
    cluster.instances["epic2"] = ["lost"]
    done = upgrade(site, maintenance_ready_timeout=1, _maintenance_pause=0.5)
    assert done.returncode != 0
    assert begun(cluster) == {"control"}
    assert "epic1 is left as it is, for other nodes are not whole after 1 s: epic2" in done.stdout


def test_no_node_is_begun_before_another_has_reported_since_the_control_plane_was_upgraded(
    site: Path, cluster: Cluster
) -> None:
    cluster.silent.add("epic2")
    done = upgrade(site, maintenance_ready_timeout=1, _maintenance_pause=0.5)
    assert done.returncode != 0
    assert begun(cluster) == {"control"}
    assert "epic1 is left as it is, for other nodes are not whole after 1 s: epic2" in done.stdout


def test_a_node_that_does_not_serve_again_ends_it(site: Path, cluster: Cluster) -> None:
    cluster.stays_lost = "epic1"
    done = upgrade(site, maintenance_ready_timeout=1, _maintenance_pause=0.5)
    assert done.returncode != 0
    assert begun(cluster) == {"control", "epic1"}
    assert "epic1 is not upgraded" in done.stdout


def test_a_node_is_drained_meanwhile_where_that_is_asked_for(site: Path, cluster: Cluster) -> None:
    done = upgrade(site, upgrade_drain=True)
    assert done.returncode == 0, done.stdout
    epic1 = [word for word in cluster.done if word.startswith("epic1 ")][2:]
    assert epic1 == ["epic1 drain", "epic1 Withdrawn", *UPGRADED, "epic1 resume", "epic1 Serving"]
    assert cluster.done.index("epic1 Serving") < cluster.done.index("epic2 drain")


def test_a_drained_node_that_fails_stays_drained_and_that_is_said(site: Path, cluster: Cluster) -> None:
    cluster.fails = "epic1 gateway_node"
    done = upgrade(site, upgrade_drain=True)
    assert done.returncode != 0
    assert "epic1 resume" not in cluster.done
    assert begun(cluster) == {"control", "epic1"}
    said = " ".join(done.stdout.split())
    assert "epic1 is left drained" in said
    assert "epicctl node uncordon epic1" in said


def test_clients_that_fail_end_it_for_those_after_them(site: Path, cluster: Cluster) -> None:
    cluster.fails = "client1 linux_controller"
    assert upgrade(site, upgrade_clients_serial=2).returncode != 0
    touched = {word for word in cluster.done if word.startswith("client") and word.endswith(" base")}
    assert touched == {"client1 base", "client2 base"}


def test_gateways_that_keep_the_former_envoy_fail_it(site: Path, cluster: Cluster) -> None:
    cluster.envoys = ["1.40.0"]
    done = upgrade(site, maintenance_ready_timeout=3, _maintenance_pause=1)
    assert done.returncode != 0
    assert begun(cluster) == {"control", *NODES, *CLIENTS}
    assert cluster.done[-1] == "gateway has 1.40.0"
