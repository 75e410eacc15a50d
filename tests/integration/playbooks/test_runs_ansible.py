# SPDX-License-Identifier: Apache-2.0
"""ansible-runner itself, on small playbooks with local connections."""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from epic.model.resources import Node
from epic.runs.ansible import AnsibleExecutor, Outcome
from epic.runs.inventory import NodePlan
from epic.runs.processes import marked
from epic.runs.results import node_results, reader_event
from epic.runs.settings import RunSettings

INSTANCE = {"gateway": "root.U1", "inside_address": "100.64.0.1"}
RUN = f"run-{os.getpid()}"
"""Not the same in processes side by side: the end of a run ends what is marked with its name."""


def plans(*names: str) -> dict[str, NodePlan]:
    return {
        name: NodePlan(
            Node.model_validate({"metadata": {"name": name}, "spec": {"address": "192.0.2.1"}}), (INSTANCE,)
        )
        for name in names
    }


@pytest.fixture
def executor(tmp_path: Path) -> AnsibleExecutor:
    return AnsibleExecutor(
        RunSettings(
            directory=tmp_path / "runs",
            playbook=tmp_path / "play.yml",
            collections=tmp_path / "collections",
            ssh_key=tmp_path / "ssh" / "id",
            envoy_version="1.40.0",
            python=sys.executable,
        )
    )


def play(tmp_path: Path, task: str) -> None:
    head = "- hosts: all\n  gather_facts: false\n  connection: local\n  tasks:\n"
    (tmp_path / "play.yml").write_text(head + task)


def execute(executor: AnsibleExecutor, *nodes: str) -> tuple[Outcome, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []

    def on_event(raw: Any) -> None:
        event = reader_event(raw)
        if event is not None:
            events.append(event)

    return executor.execute(RUN, plans(*nodes), on_event, lambda: False), events


def test_nodes_get_their_instances_and_results_come_back(executor: AnsibleExecutor, tmp_path: Path) -> None:
    play(
        tmp_path,
        "    - name: Check\n      ansible.builtin.assert:\n        quiet: true\n"
        "        that: epic_instances[0].gateway == 'root.U1'\n"
        "    - name: Fail on one\n      ansible.builtin.fail:\n        msg: the disk is full\n"
        "      when: inventory_hostname == 'e2'\n",
    )
    outcome, events = execute(executor, "e1", "e2")
    assert not outcome.succeeded
    results = node_results(["e1", "e2"], events, outcome.failure)
    assert results["e1"].state == "ok"
    assert (results["e2"].state, results["e2"].task) == ("failed", "Fail on one")
    assert results["e2"].message == "the disk is full"


def test_its_directory_is_private(executor: AnsibleExecutor, tmp_path: Path) -> None:
    play(tmp_path, "    - name: Nothing\n      ansible.builtin.meta: noop\n")
    outcome, _ = execute(executor, "e1")
    assert outcome.succeeded, outcome
    runs = tmp_path / "runs"
    assert stat.S_IMODE(runs.stat().st_mode) == 0o700
    assert stat.S_IMODE((runs / f"work/{RUN}/hosts.json").stat().st_mode) == 0o600


def test_a_playbook_that_does_not_exist_is_a_failure_in_words(executor: AnsibleExecutor) -> None:
    outcome, _ = execute(executor, "e1")
    assert not outcome.succeeded
    assert "play.yml" in outcome.failure


def test_a_running_playbook_is_cancelled_soon(executor: AnsibleExecutor, tmp_path: Path) -> None:
    play(tmp_path, "    - name: Sleep\n      ansible.builtin.command: sleep 30\n")
    threading.Timer(1.5, executor.cancel).start()
    start = time.monotonic()
    outcome, _ = execute(executor, "e1")
    assert not outcome.succeeded
    assert time.monotonic() - start < 6


def test_nothing_of_a_cancelled_run_is_left_though_ansibles_workers_are_sessions_of_their_own(
    executor: AnsibleExecutor, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    play(tmp_path, f"    - name: Sleep\n      ansible.builtin.shell: touch {begun}; sleep 300\n")
    outcome = executor.execute(RUN, plans("e1"), lambda _: None, begun.exists)
    assert not outcome.succeeded
    assert list(marked(RUN)) == []


def test_a_node_that_does_not_answer_ends_the_run_in_time(tmp_path: Path) -> None:
    play(tmp_path, "    - name: Sleep\n      ansible.builtin.command: sleep 300\n")
    settings = RunSettings(
        directory=tmp_path / "runs",
        playbook=tmp_path / "play.yml",
        collections=tmp_path / "collections",
        ssh_key=tmp_path / "ssh" / "id",
        envoy_version="1.40.0",
        python=sys.executable,
        timeout_seconds=2,
    )
    outcome, _ = execute(AnsibleExecutor(settings), "e1")
    assert outcome == Outcome(succeeded=False, failure="no answer within 2 seconds")


def test_runs_side_by_side_do_not_disturb_each_other(executor: AnsibleExecutor, tmp_path: Path) -> None:
    play(
        tmp_path,
        "    - name: Meet\n      ansible.builtin.shell: >-\n"
        f"        touch {tmp_path}/{{{{ inventory_hostname }}}};\n"
        f"        until test -e {tmp_path}/e1 -a -e {tmp_path}/e2; do sleep 0.1; done\n",
    )
    with ThreadPoolExecutor(2) as threads:
        ran = [
            threads.submit(executor.execute, name, plans(name), lambda _: None, lambda: False)
            for name in ("e1", "e2")
        ]
        assert [future.result(60).succeeded for future in ran] == [True, True]


def test_settings_of_an_earlier_start_are_forgotten(executor: AnsibleExecutor, tmp_path: Path) -> None:
    play(
        tmp_path,
        "    - name: Check\n      ansible.builtin.assert:\n        quiet: true\n"
        "        that: lookup('ansible.builtin.env', 'ANSIBLE_FORKS') == '2'\n",
    )
    assert not execute(executor, "e1")[0].succeeded
    assert execute(executor, "e1", "e2")[0].succeeded
