# SPDX-License-Identifier: Apache-2.0
"""The real epic-control as a process of its own, that can be killed and started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import yaml

from epic.api.access import auth
from epic.cache.store import CachedStore
from epic.model.base import Metadata
from epic.model.resources import Account, AccountSpec, LBServiceGroup, Node, ServicePrefix, User, UserSpec
from epic.pki import operations
from epic.pki.operations import Pki
from epic.store.location import StoreLocation

API = "/api/epic"
ADMIN = ("admin", "admin-password")
ACCOUNT = "shop"
NODES = ("e1", "e2")
_START_SECONDS = 90.0
_PAIR = {"certificate": "crt", "key": "key"}


class ControlProcess:
    """Its files are in a directory; what it says is in `log`. `faults` is code that runs before it begins."""

    def __init__(self, directory: Path, location: StoreLocation, faults: str = "") -> None:
        self.directory = directory
        self.location = location
        self.log = directory / "control.log"
        self._faults = faults
        self.pki = directory / "pki"
        self._process: subprocess.Popen[bytes] | None = None
        self.port, self.ads_port, self.workload_port = _free_port(), _free_port(), _free_port()
        self.metrics_port = _free_port()
        self._write_files()

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    def prepare(self) -> None:
        """Put into the empty store what there is to begin with: an account, a pool, a template, nodes."""
        pool = {"pool": "203.0.113.0/24", "subnet": "203.0.113.0/24"}
        with closing(CachedStore(self.location)) as store, store.transaction() as transaction:
            transaction.create(Account(metadata=Metadata(name=ACCOUNT), spec=AccountSpec(proxy_limit=500)))
            prefix = {"metadata": {"name": "p"}, "spec": {"public-pool": pool}}
            transaction.create(ServicePrefix.model_validate(prefix))
            group = {"metadata": {"name": "g", "namespace": ACCOUNT}, "spec": {"service-prefix": "p"}}
            transaction.create(LBServiceGroup.model_validate(group))
            for i, name in enumerate(NODES, 1):
                spec = {"address": f"192.0.2.{i}", "capacity": 1000}
                transaction.create(Node.model_validate({"metadata": {"name": name}, "spec": spec}))
            user = UserSpec(password_hash=auth.hash_password(ADMIN[1]), admin=True)
            transaction.create(User(metadata=Metadata(name=ADMIN[0]), spec=user))

    def start(self) -> None:
        """Start it, and wait until it serves."""
        code = f"{self._faults}\nimport sys\nsys.argv = ['epic-control', '--config', {str(self._config)!r}]\n"
        code += "from epic.control import main\nmain()\n"
        address = self.directory / "notify"
        address.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified, self.log.open("ab") as log:
            notified.bind(str(address))
            environment = {**os.environ, "NOTIFY_SOCKET": str(address)}
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], env=environment, stdout=log, stderr=log
            )
            notified.settimeout(_START_SECONDS)
            try:
                assert notified.recv(100) == b"READY=1"
            except TimeoutError:
                raise AssertionError(f"epic-control does not start:\n{self.log.read_text()}") from None

    def kill(self) -> None:
        """End it at once, in the middle of whatever it does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End it as systemd does."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(30)

    def client(self) -> httpx.Client:
        """An administrator's client."""
        context = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
        url = f"https://127.0.0.1:{self.port}"
        return httpx.Client(base_url=url, auth=ADMIN, verify=context, timeout=60)

    def metrics(self) -> list[str]:
        """The lines of what it shows to Prometheus."""
        return httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=60).text.splitlines()

    def log_text(self) -> str:
        """All that it said so far."""
        return self.log.read_text()

    def _write_files(self) -> None:
        self.directory.mkdir(exist_ok=True)
        self.pki.mkdir()
        pki = Pki(self.pki, datetime.now(UTC).replace(microsecond=0))
        operations.control(pki, ["127.0.0.1"], None, timedelta(days=1))
        server = {name: str(self.pki / f"server.{end}") for name, end in _PAIR.items()}
        agents = {f"agents_{name}": str(self.pki / f"agents.{end}") for name, end in _PAIR.items()}
        envoy = self.directory / "envoy"
        envoy.write_text("#!/bin/sh\nexit 0\n")
        envoy.chmod(0o755)
        (self.directory / "runs").mkdir()
        content: dict[str, Any] = {
            "node_name": "c1",
            "store": json.loads(self.location.model_dump_json(exclude_none=True)),
            "revisions": str(self.directory / "revisions"),
            "rest": {"listen": "127.0.0.1", "port": self.port, **server},
            "ads": {
                "listen": "127.0.0.1",
                "port": self.ads_port,
                "workload_port": self.workload_port,
                "ca": str(self.pki / "ca.crt"),
                **server,
                **agents,
            },
            "metrics": {"port": self.metrics_port},
            "envoy_binary": str(envoy),
            "envoy_version": "1",
            "runs": {
                "directory": str(self.directory / "runs"),
                "collections": str(self.directory),
                "ssh_key": str(self.directory / "none"),
            },
        }
        self._config = self.directory / "control.yaml"
        self._config.write_text(yaml.safe_dump(content))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
