# SPDX-License-Identifier: Apache-2.0
"""A node that no router hears is named, and takes no other's place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import condition, ready_instances
from hosts import Lab, Target, eventually, settled, tally
from test_node_operations import epicctl

from epic.client import EpicClient

NODE = "/api/epic/nodes/{}"


def heard(api: EpicClient, node: str) -> str:
    """The status of the node's condition."""
    return str(condition(api.get(NODE.format(node))["node"], "BGPEstablished").get("status"))


@pytest.fixture
def both_again(lab: Lab, web_target: Target) -> Iterator[None]:
    """Whatever the test did, both nodes serve and are heard at the end."""
    yield
    lab["epic2"].run("systemctl kill -s CONT bird; systemctl start bird")
    for node in ("epic1", "epic2"):
        done = epicctl("node", "uncordon", node)
        assert done.returncode == 0, done
    settled(lab, web_target)


@pytest.mark.usefixtures("both_again")
@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("systemctl stop bird", "systemctl start bird"),
        ("systemctl kill -s STOP bird", "systemctl kill -s CONT bird"),
        ("birdc disable upstream_router", "birdc enable upstream_router"),
    ],
    ids=["BIRD is stopped", "BIRD hangs", "its session is closed"],
)
def test_the_last_node_that_a_router_hears_is_not_drained(
    lab: Lab, api: EpicClient, web: dict[str, Any], web_target: Target, begin: str, end: str
) -> None:
    eventually(lambda: heard(api, "epic2") == "True", within=30, what="a session of epic2")
    lab["epic2"].run(begin)
    eventually(lambda: heard(api, "epic2") == "False", within=30, what="epic2 without a session")
    status = epicctl("status")
    assert status.returncode == 1
    assert "not BGPEstablished" in status.stdout
    line = next(row for row in epicctl("get", "nodes").stdout.splitlines() if row.startswith("epic2"))
    assert "0/1" in line
    waits = epicctl("node", "drain", "epic1", "--timeout", "5")
    assert waits.returncode == 3, waits
    assert "NoOtherHeard" in waits.stdout + waits.stderr
    # Nothing was moved, and who is heard serves on.
    assert set(ready_instances(api, web["metadata"]["name"]).values()) == {"epic1", "epic2"}
    settled(lab, web_target, 1)
    replies = lab.request(web_target, 20)
    assert {reply.status for reply in replies} == {200}, tally(replies)
    lab["epic2"].run(end)
    done = epicctl("node", "drain", "epic1")
    assert done.returncode == 0, done
    replies = lab.request(web_target, 20)
    assert {reply.status for reply in replies} == {200}, tally(replies)
    assert epicctl("node", "uncordon", "epic1").returncode == 0
    eventually(lambda: epicctl("status").returncode == 0, within=30, what="that everything is well")
