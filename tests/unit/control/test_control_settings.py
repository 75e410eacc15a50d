# SPDX-License-Identifier: Apache-2.0
"""control.yaml: what a good one gives, and what a bad one is told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from epic.control.settings import load_settings
from epic.errors import Invalid
from epic.ipam.networks import DEFAULT_POOLS
from epic.rotation import Policy

GOOD = """
node_name: epic1
store: {sqlite: /var/lib/epic/control/store.db}
revisions: /var/lib/epic/control/revisions
rest: {listen: "0.0.0.0", port: 8443, certificate: /c.crt, key: /c.key}
ads:
  {port: 18000, certificate: /c.crt, key: /c.key, ca: /ca.crt, agents_certificate: /a.crt, agents_key: /a.key}
envoy_binary: /opt/envoy/1.40.0/envoy
envoy_version: 1.40.0
inside_pool: 100.64.0.0/10
runs: {directory: /runs, collections: /opt/epic/collections, ssh_key: /ssh/id, user: root}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "control.yaml"
    path.write_text(GOOD)
    return path


def test_runs_use_the_playbook_of_the_collection(file: Path) -> None:
    settings = load_settings(file).run_settings()
    root = Path("/opt/epic/collections/ansible_collections/epic/gateway")
    assert settings.playbook == root / "playbooks/gateways.yml"
    assert settings.envoy_version == "1.40.0"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("node_name: epic1", "", "node_name is missing"),
        ("port: 8443", "prot: 8443", "rest.prot is not known; known here are listen, certificate, key, port"),
        ("port: 8443", "port: 99999", "rest.port: Input should be less than or equal to 65535 (it is 99999)"),
        ("envoy_binary", "envoy", "envoy is not known; known here are node_name, store"),
        (
            "store: {sqlite: /var/lib/epic/control/store.db}",
            "store: {}",
            "store: store: expected either sqlite",
        ),
        (
            "store: {sqlite: /var/lib/epic/control/store.db}",
            "store: {etcd: {endpoint: ['localhost:2379']}}",
            "store.etcd.endpoint is not known; known here are endpoints, prefix, authority",
        ),
        ("100.64.0.0/10", "100.64.0.1/10", "inside_pool: "),
        ("runs: {", "runs: [", "is not YAML"),
        (
            "inside_pool:",
            "inside_pool6: fd00::/64\ninside_pool:",
            "inside_pool6: it must be a /96",
        ),
        (
            "inside_pool:",
            "mapped_pool: 10.0.0.0/16\ninside_pool:",
            "mapped_pool: it must be a /12",
        ),
        (
            "inside_pool:",
            "mapped_pool6: fd00::/112\ninside_pool:",
            "mapped_pool6: it must be a /108",
        ),
        (
            "inside_pool: 100.64.0.0/10",
            "inside_pool: 100.64.0.0/10\nmapped_pool: 100.0.0.0/8",
            "mapped_pool: it overlaps the pool of inside addresses 100.64.0.0/10",
        ),
        (
            "inside_pool:",
            "mapped_pool6: fd65:7069::/32\ninside_pool:",
            "mapped_pool6: it overlaps the pool of inside addresses fd65:7069:6300::/96",
        ),
    ],
)
def test_a_mistake_is_told_with_file_and_key(file: Path, old: str, new: str, message: str) -> None:
    file.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(Invalid) as error:
        load_settings(file)
    assert str(file) in str(error.value)
    assert message in str(error.value)


def test_pools_that_are_not_named_are_the_usual_ones(file: Path) -> None:
    assert load_settings(file).pools() == DEFAULT_POOLS
    file.write_text(GOOD + "inside_pool6: fd00::/96\nmapped_pool: 44.0.0.0/12\nmapped_pool6: fd01::/108\n")
    assert [str(pool) for pool in vars(load_settings(file).pools()).values()] == [
        "fd00::/96",
        "44.0.0.0/12",
        "fd01::/108",
    ]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="nope: No such file"):
        load_settings(tmp_path / "nope")


def test_keys_of_tunnels_live_ten_minutes_unless_said_otherwise(file: Path) -> None:
    assert load_settings(file).tunnels.policy() == Policy(timedelta(minutes=10), timedelta(seconds=30))
    file.write_text(GOOD + "tunnels: {key_minutes: 0.5, grace_seconds: 5}\n")
    assert load_settings(file).tunnels.policy() == Policy(timedelta(seconds=30), timedelta(seconds=5))
