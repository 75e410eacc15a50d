# SPDX-License-Identifier: Apache-2.0
"""What the role gives epic-control, as epic-control reads it."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from role_values import role_value

from epic.control.settings import ControlSettings, load_settings

HOST = {
    "inventory_hostname": "epic1",
    "ansible_host": "10.0.0.1",
    "cluster_control_address": "192.0.2.10",
    "_cluster_manifest": {"envoy": {"version": "1.2.3"}, "collection": {"digest": "abc"}},
}


def value(name: str, **variables: Any) -> Any:
    return role_value(["cluster", "control_plane"], name, **HOST | variables)


def settings(directory: Path, **variables: Any) -> ControlSettings:
    """/etc/epic/control.yaml."""
    path = directory / "control.yaml"
    path.write_text(json.dumps(value("_control_plane_configuration", **variables)))
    return load_settings(path)


def test_the_control_plane_is_given_its_own_defaults(tmp_path: Path) -> None:
    found = settings(tmp_path)
    for section in (found, found.rest, found.ads, found.runs, found.tunnels):
        for name, field in type(section).model_fields.items():
            if not field.is_required() and name != "tunnels":
                assert getattr(section, name) == field.default, name
    assert found.store.sqlite == Path("/var/lib/epic/control/store.db")


def test_the_control_plane_is_given_what_its_site_says(tmp_path: Path) -> None:
    """Values from a command line are text."""
    found = settings(
        tmp_path,
        control_plane_listen="192.0.2.10",
        control_plane_connections="4096",
        control_plane_tunnel_key_minutes="2",
        control_plane_tunnel_grace_seconds="5",
        control_plane_drain_seconds="60",
        control_plane_address_quarantine_seconds="0",
        cluster_rest_port="443",
        cluster_ads_port="18001",
        cluster_workload_port="18002",
        cluster_agent_certificate_hours="1",
        cluster_run_user="ops",
        cluster_inside_pool="10.200.0.0/16",
        cluster_inside_pool6="fd00:1::/96",
        cluster_mapped_pool="10.64.0.0/10",
        cluster_mapped_pool6="fd00:2::/64",
    )
    assert (str(found.rest.listen), found.rest.port, found.rest.connections) == ("192.0.2.10", 443, 4096)
    assert (str(found.ads.listen), found.ads.port) == ("192.0.2.10", 18001)
    assert found.ads.workload_port == 18002
    assert found.ads.agent_hours == 1
    assert found.tunnels.policy().period == timedelta(minutes=2)
    assert found.tunnels.policy().grace == timedelta(seconds=5)
    assert (found.drain_seconds, found.address_quarantine_seconds) == (60, 0)
    assert found.runs.user == "ops"
    pools = (found.inside_pool, found.inside_pool6, found.mapped_pool, found.mapped_pool6)
    assert list(map(str, pools)) == ["10.200.0.0/16", "fd00:1::/96", "10.64.0.0/10", "fd00:2::/64"]


def test_the_store_may_be_an_etcd(tmp_path: Path) -> None:
    etcd = {"endpoints": ["192.0.2.20:2379"], "authority": "/etc/ca.crt", "prefix": "/east/"}
    store = settings(tmp_path, control_plane_etcd=etcd).store
    assert store.sqlite is None
    assert store.etcd is not None
    assert (store.etcd.endpoints, store.etcd.prefix) == (("192.0.2.20:2379",), "/east/")


def test_contents_of_certificates_are_files_that_the_role_writes(tmp_path: Path) -> None:
    etcd = {
        "endpoints": ["192.0.2.20:2379"],
        "timeout_seconds": "2",
        "authority": "/etc/ca.crt",
        "certificate_content": "the certificate",
        "key_content": "the key",
    }
    store = settings(tmp_path, control_plane_etcd=etcd).store
    assert store.etcd is not None
    assert store.etcd.timeout_seconds == 2
    assert store.etcd.authority == Path("/etc/ca.crt")
    assert store.etcd.certificate == Path("/etc/epic/etcd/certificate.pem")
    assert store.etcd.key == Path("/etc/epic/etcd/key.pem")
    assert value("_control_plane_etcd_given", control_plane_etcd=etcd) == [
        {"path": "/etc/epic/etcd/certificate.pem", "content": "the certificate"},
        {"path": "/etc/epic/etcd/key.pem", "content": "the key"},
    ]


def test_the_servers_certificate_has_the_sites_names_and_days() -> None:
    said = value(
        "_control_plane_pki", control_plane_certificate_days="7", control_plane_names=["api.example.net"]
    )
    names = {name for option, name in pairwise(said) if option == "--name"}
    assert names == {"192.0.2.10", "epic1", "10.0.0.1", "localhost", "127.0.0.1", "api.example.net"}
    assert said[said.index("--days") + 1] == "7"
