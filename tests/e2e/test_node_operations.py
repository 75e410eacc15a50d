# SPDX-License-Identifier: Apache-2.0
"""Nodes leave service and come back while requests go on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ready_instances
from hosts import CREDENTIAL, Lab, Target, eventually, settled, tally
from traffic import none_broken, traffic

from epic.client import EpicClient

EPICCTL = Path(sys.executable).parent / "epicctl"
NODE = "/api/epic/nodes/epic2"


def epicctl(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(EPICCTL), "--config", str(CREDENTIAL), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture
def afterwards_uncordoned(lab: Lab, web_target: Target) -> Iterator[None]:
    """Whatever the test did to epic2, it serves again at the end."""
    yield
    done = epicctl("node", "uncordon", "epic2")
    assert done.returncode == 0, done
    settled(lab, web_target)


@pytest.mark.usefixtures("afterwards_uncordoned")
def test_a_node_is_drained_and_comes_back_without_a_failed_request(
    lab: Lab, api: EpicClient, web: dict[str, Any], web_target: Target
) -> None:
    name = web["metadata"]["name"]
    with traffic(lab, web_target) as seen:
        drained = epicctl("node", "drain", "epic2")
        assert drained.returncode == 0, drained
        assert drained.stdout.splitlines()[-1] == "node epic2 is drained"
        assert set(ready_instances(api, name).values()) == {"epic1"}
        during = lab.request(web_target, 50)
        assert {(r.status, r.inside) for r in during} == {(200, *ready_instances(api, name))}, tally(during)
        back = epicctl("node", "uncordon", "epic2")
        assert back.returncode == 0, back
        assert set(ready_instances(api, name).values()) == {"epic1", "epic2"}
        settled(lab, web_target)
    none_broken(seen)
    assert [count for _, count in seen.next_hops] == [2, 1, 2]


@pytest.mark.usefixtures("afterwards_uncordoned")
def test_a_drained_node_says_so_and_is_no_fault(lab: Lab, api: EpicClient, web: dict[str, Any]) -> None:
    del lab, web
    assert epicctl("node", "drain", "epic2").returncode == 0
    node = api.get(NODE)["node"]
    assert node["status"]["phase"] == "Draining"
    assert set(node["status"]["instances"]) == {"Withdrawn"}
    line = next(row for row in epicctl("get", "nodes").stdout.splitlines() if row.startswith("epic2"))
    assert "Drained" in line
    status = epicctl("status")
    assert status.returncode == 0, status.stdout


@pytest.mark.usefixtures("afterwards_uncordoned")
def test_a_cordoned_node_serves_on_but_gets_no_new_gateway(
    api: EpicClient, web: dict[str, Any], make_gateway: Any
) -> None:
    assert epicctl("node", "cordon", "epic2").returncode == 0
    name = make_gateway()["metadata"]["name"]
    eventually(lambda: ready_instances(api, name), within=30, what="the new gateway on the other node")
    assert set(ready_instances(api, name).values()) == {"epic1"}
    assert set(ready_instances(api, web["metadata"]["name"]).values()) == {"epic1", "epic2"}
