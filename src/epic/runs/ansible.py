# SPDX-License-Identifier: Apache-2.0
"""One playbook run through ansible-runner."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import ansible_runner

from epic.runs.inventory import NodePlan, inventory
from epic.runs.processes import MARK, end_marked
from epic.runs.settings import RunSettings

log = logging.getLogger(__name__)

_DIRECTORIES_KEPT = 50
_CONNECT_SECONDS = 5
_OUTPUT_MAX = 2000


@dataclass(frozen=True)
class Outcome:
    """How a run ended; `failure` is Ansible's own words when it could not do its work.

    `canceled`: it was ended from outside, which says nothing of the nodes that it had not come to.
    """

    succeeded: bool
    failure: str = ""
    canceled: bool = False


class AnsibleExecutor:
    """Executes playbooks in a directory of its own, readable by nobody else."""

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings
        self._canceled = Event()

    def cancel(self) -> None:
        """End what is running; nothing can be executed afterwards."""
        self._canceled.set()

    def execute(
        self,
        run: str,
        plans: Mapping[str, NodePlan],
        on_event: Callable[[Mapping[str, Any]], None],
        canceled: Callable[[], bool],
    ) -> Outcome:
        """Run the playbook on these nodes; `on_event` gets Ansible's events.

        Blocks until it is done, was canceled, or had its time; no process of it is left then.
        """
        directory = self._directory(run)
        hosts = directory / "hosts.json"
        _write(hosts, json.dumps(inventory(plans, self._settings)))

        def handle(event: Mapping[str, Any]) -> bool:
            on_event(event)
            # False: ansible-runner need not write it to a file.
            return False

        result = ansible_runner.run(
            private_data_dir=str(directory),
            ident=run,
            playbook=str(self._settings.playbook),
            inventory=str(hosts),
            envvars=self._environment(len(plans)) | {MARK: run},
            settings={"pexpect_timeout": 1},
            timeout=self._settings.timeout_seconds,
            quiet=True,
            event_handler=handle,
            cancel_callback=lambda: self._canceled.is_set() or canceled(),
        )
        if result.status in {"canceled", "timeout"}:
            # Ansible's workers have sessions of their own, which their parent's end does not end.
            end_marked(run)
        if result.status == "successful":
            return Outcome(succeeded=True)
        if result.status == "timeout":
            return Outcome(False, f"no answer within {self._settings.timeout_seconds} seconds")
        failure = f"ansible {result.status}: {_tail(result)}"
        return Outcome(False, failure, canceled=result.status == "canceled")

    def _directory(self, run: str) -> Path:
        """A directory for this run alone; those of the oldest runs go."""
        directory = self._settings.directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        # No configuration of the machine's or of a home directory may change what runs do.
        _write(directory / "ansible.cfg", "[defaults]\n")
        work = directory / "work"
        work.mkdir(mode=0o700, exist_ok=True)
        for old in sorted(work.iterdir(), key=lambda path: path.stat().st_mtime)[:-_DIRECTORIES_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        # ansible-runner keeps the environment that it finds there, be it of other settings.
        shutil.rmtree(work / run, ignore_errors=True)
        (work / run).mkdir(mode=0o700)
        return work / run

    def _environment(self, nodes: int) -> dict[str, str]:
        settings = self._settings
        known_hosts = settings.ssh_key.parent / "known_hosts"
        ssh = (
            "ControlMaster=auto",
            "ControlPersist=600",
            "PreferredAuthentications=publickey",
            "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={known_hosts}",
            # A node that died is noticed although its connection is kept.
            "ServerAliveInterval=5",
            "ServerAliveCountMax=2",
        )
        return {
            # A service's PATH does not lead to the ansible-playbook that is installed beside it.
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "ANSIBLE_CONFIG": str(settings.directory / "ansible.cfg"),
            "ANSIBLE_HOME": str(settings.directory / "home"),
            "ANSIBLE_COLLECTIONS_PATH": str(settings.collections),
            "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "False",
            "ANSIBLE_INVENTORY_ENABLED": "yaml",
            "ANSIBLE_GATHERING": "explicit",
            "ANSIBLE_PIPELINING": "True",
            "ANSIBLE_SSH_ARGS": " ".join(f"-o {option}" for option in ssh),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(settings.directory / "cp"),
            "ANSIBLE_TIMEOUT": str(_CONNECT_SECONDS),
            "ANSIBLE_FORKS": str(min(max(nodes, 1), 50)),
            "ANSIBLE_RETRY_FILES_ENABLED": "False",
            "ANSIBLE_DEPRECATION_WARNINGS": "False",
            "ANSIBLE_NOCOLOR": "True",
            "ANSIBLE_STRATEGY": "linear",
        }


def _write(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def _tail(result: ansible_runner.Runner) -> str:
    try:
        text = result.stdout.read()
    except (OSError, ansible_runner.AnsibleRunnerException):
        return "no output"
    return " ".join(text[-_OUTPUT_MAX:].split()) or "no output"
