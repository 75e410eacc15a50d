# SPDX-License-Identifier: Apache-2.0
"""Operators get epic-trace on the hosts that they name, and lose it again."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hosts import Lab, Target, assert_done, run_playbook

NODE = "epic2"
PLAYBOOK = "playbooks/trace.yml"
HAVE = "ls /usr/local/sbin/epic-trace; dpkg-query -W -f '${Status}\\n' python3-bpfcc"


@pytest.fixture
def tracing(lab: Lab) -> Iterator[None]:
    """epic-trace is there, as it is not at first."""
    assert "install ok installed" not in lab[NODE].run(HAVE, check=False)
    done = run_playbook(PLAYBOOK, "--limit", NODE)
    assert_done(done)
    yield
    done = run_playbook(PLAYBOOK, "--limit", NODE, "-e", "trace_state=absent")
    assert_done(done)
    left = lab[NODE].run(HAVE, check=False)
    assert "epic-trace" not in left
    assert "install ok installed" not in left


@pytest.mark.usefixtures("tracing")
def test_epic_trace_follows_requests_on_a_node_that_was_given_it(lab: Lab, web_target: Target) -> None:
    load = lab.load(web_target, 200, 0.05)
    lines = lab[NODE].run("epic-trace -o json --duration 5 --count 200").splitlines()
    load.stop()
    steps = {json.loads(line).get("step") for line in lines if line.startswith("{")}
    assert {"instance sends", "encapsulated", "decapsulated"} <= steps, lines[:20]


def test_preflight_finds_the_labs_hosts_fit() -> None:
    done = run_playbook("playbooks/preflight.yml")
    assert_done(done)
    assert "changed=0" in done.stdout
