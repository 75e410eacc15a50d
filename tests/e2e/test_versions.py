# SPDX-License-Identifier: Apache-2.0
"""What a node is given in part: EPIC's programs, an earlier version and back; what tags choose."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hosts import Lab, Target, assert_done, run_playbook, run_site
from traffic import none_broken, traffic

NODE = "epic2"
EARLIER = "0.0.9-earlier"


@pytest.fixture
def bundled(lab: Lab) -> Iterator[str]:
    """The version that runs on the node, beside which there is an earlier one."""
    host = lab[NODE]
    version = host.run("readlink /opt/epic/current").strip()
    host.run(f"cp -a /opt/epic/{version} /opt/epic/{EARLIER}")
    host.run(f"sed -i '1s,/opt/epic/{version}/,/opt/epic/{EARLIER}/,' /opt/epic/{EARLIER}/bin/epic*")
    yield version
    run_site("--limit", NODE, "--tags", "programs")
    host.run(f"rm -rf /opt/epic/{EARLIER}")


def running(lab: Lab) -> str:
    """The interpreter that the node's agent runs by."""
    command = "tr '\\0' ' ' <\"/proc/$(systemctl show -P MainPID epic-agent)/cmdline\""
    return lab[NODE].run(command).split()[0]


def test_a_node_goes_back_and_forth_without_a_failed_request(
    lab: Lab, web_target: Target, bundled: str
) -> None:
    with traffic(lab, web_target, rate=50, connections=10) as seen:
        back = run_playbook("playbooks/upgrade.yml", "--limit", NODE, "-e", f"base_version={EARLIER}")
        assert back.returncode == 0, back.stdout[-3000:]
        assert running(lab) == f"/opt/epic/{EARLIER}/bin/python"
        forth = run_site("--limit", NODE, "--tags", "programs")
        assert forth.returncode == 0, forth.stdout[-3000:]
        assert running(lab) == f"/opt/epic/{bundled}/bin/python"
    assert seen.answered > 0
    none_broken(seen)


def test_a_version_that_the_host_does_not_have_is_refused_with_those_it_has(lab: Lab, bundled: str) -> None:
    refused = run_site("--limit", NODE, "--tags", "programs", "-e", "base_version=9.9")
    assert refused.returncode != 0
    assert "This host has no version 9.9 of EPIC to run" in refused.stdout
    assert f"{EARLIER}, {bundled}" in refused.stdout
    assert lab[NODE].run("readlink /opt/epic/current").strip() == bundled


def test_tags_choose_what_a_node_is_given(lab: Lab, web_target: Target) -> None:
    """Of packages and certificates what is missing; its configuration is not looked at."""
    del web_target
    host = lab[NODE]
    host.run("rm /etc/epic/pki/agent.pem; apt-get -q -y purge bpftool")
    done = run_site("--limit", NODE, "--tags", "preflight,packages,certificates")
    assert_done(done)
    assert "Refuse a host that is not fit" in done.stdout
    assert "Configure the node" not in done.stdout
    assert "not_after" in host.run("/opt/epic/bin/epic-pki show && dpkg-query -W bpftool")
