# SPDX-License-Identifier: Apache-2.0
"""What a gateway waits for before it starts: firewall and routing rule in the kernel, whoever made them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from firewall_rules import firewall_rules

SCRIPT = Path(__file__).parents[3] / "roles/gateway_node/files/epic-node"

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def host(*commands: str) -> subprocess.CompletedProcess[str]:
    """Run commands on a host of their own until one fails."""
    return subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-e", "-c", "\n".join(commands)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture
def load(tmp_path: Path) -> str:
    """The command that loads the firewall."""
    rules = tmp_path / "firewall.nft"
    rules.write_text(firewall_rules(), encoding="utf-8")
    return f"nft --file {rules}"


UP, CHECK = f"sh {SCRIPT} up", f"sh {SCRIPT} check"


def test_with_both_it_starts_at_once(load: str) -> None:
    done = host(load, UP, UP, CHECK, "ip -4 rule show pref 100", "ip -6 rule show pref 100")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == 2 * "100:\tfrom all lookup 200\n"


def test_a_kernel_without_ipv6_needs_no_rule_of_it(load: str) -> None:
    done = host(load, "mount -t tmpfs none /proc/sys/net", UP, CHECK, "ip -6 rule show pref 100")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


def test_gateways_with_ipv4_addresses_do_not_wait_for_the_rule_of_ipv6(load: str) -> None:
    done = host(load, UP, "ip -6 rule del pref 100", CHECK)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_firewall_it_does_not_start(load: str) -> None:
    done = host(load, UP, "nft flush ruleset", CHECK)
    assert done.returncode == 1
    assert "epic-firewall.service" in done.stderr


def test_without_routing_rule_it_does_not_start(load: str) -> None:
    assert host(load, CHECK).returncode == 1


def test_it_waits_for_a_firewall_that_comes_late(load: str) -> None:
    assert host(UP, f"(sleep 1; {load}) &", CHECK).returncode == 0
