# SPDX-License-Identifier: Apache-2.0
"""What serves in the bed: a real Envoy in each instance, and the backends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from backend import DOWNLOADS, HTTP, TLS
from bed import BACKEND, PUBLIC, PUBLIC6, Bed, Node
from namespaces import eventually

ENVOY = Path(sys.executable).with_name("envoy")
HERE = Path(__file__).parent
PUBLIC_HTTP = 80
AT_LEISURE = ("nice", "-n", "10")
"""An Envoy starts so, for nodes with processors of their own would not hold the others up by that."""
_TYPES = "type.googleapis.com/envoy.extensions"
_MANAGER = f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = f"{_TYPES}.filters.http.router.v3.Router"
_PROXY = f"{_TYPES}.filters.network.tcp_proxy.v3.TcpProxy"


class Serving:
    """`with Serving(bed, directory):` Envoys and backends run in it."""

    def __init__(self, bed: Bed, directory: Path) -> None:
        self._bed, self._directory = bed, directory
        self._envoys: dict[int, subprocess.Popen[bytes]] = {}
        self._backends: subprocess.Popen[str] | None = None

    def __enter__(self) -> Serving:
        self._directory.mkdir(exist_ok=True)
        self._start_backends()
        for node in self._bed.nodes:
            self.start_envoy(node)
        for node in self._bed.nodes:
            self.wait_for_envoy(node)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for index in list(self._envoys):
            self.kill_envoy(self._bed.nodes[index])
        if self._backends:
            self._backends.kill()
            self._backends.communicate()

    def start_envoy(self, node: Node) -> None:
        """In its namespace; it takes a moment: wait for it."""
        path = self._directory / f"envoy{node.index}.json"
        path.write_text(json.dumps(_bootstrap(node, self._admin(node))), encoding="utf-8")
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        with node.instance:
            self._envoys[node.index] = subprocess.Popen([*AT_LEISURE, ENVOY, "--config-path", path, *options])

    def wait_for_envoy(self, node: Node) -> None:
        """Until it serves; from then on it is as important as the others."""
        assert eventually(lambda: self.ask_envoy(node, "ready") == "LIVE", 60), f"Envoy {node.index}"
        own = os.getpriority(os.PRIO_PROCESS, 0)
        for task in Path("/proc", str(self._envoys[node.index].pid), "task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(task.name), own)

    def kill_envoy(self, node: Node) -> None:
        """As a crash does."""
        process = self._envoys.pop(node.index)
        process.kill()
        process.wait()

    def processes(self) -> list[int]:
        """Of all that runs: Envoys and backends."""
        found: list[subprocess.Popen[Any]] = list(self._envoys.values())
        return [process.pid for process in (*found, *filter(None, [self._backends]))]

    def ask_envoy(self, node: Node, path: str, method: str = "GET") -> str:
        """Its admin interface's answer."""
        command = [
            "curl",
            "-s",
            "-X",
            method,
            "--unix-socket",
            str(self._admin(node)),
            f"http://admin/{path}",
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    def _admin(self, node: Node) -> Path:
        return self._directory / f"admin{node.index}.sock"

    def _start_backends(self) -> None:
        certificate, key = make_certificate(self._directory)
        command = [sys.executable, "-S", HERE / "backend.py", str(BACKEND), certificate, key]
        with self._bed.workload:
            self._backends = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._backends.stdout is not None
        assert self._backends.stdout.readline() == "ready\n"


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """Self-signed; certificate and key."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=shop", "-days", "2", "-out", str(certificate), "-keyout", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def _bootstrap(node: Node, admin: Path) -> dict[str, Any]:
    """The listeners and clusters that EPIC's templates make."""
    manager = {
        "@type": _MANAGER,
        "stat_prefix": "http",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "http", "timeout": "0s"}}],
                }
            ]
        },
    }
    listeners = []
    for address in (PUBLIC, PUBLIC6):
        listeners.append(_listener(str(address), PUBLIC_HTTP, manager))
        for port, cluster in ((TLS, "tls"), (DOWNLOADS, "downloads")):
            proxy = {"@type": _PROXY, "stat_prefix": cluster, "cluster": cluster}
            listeners.append(_listener(str(address), port, proxy))
    clusters = [_cluster(node, *each) for each in (("http", HTTP), ("tls", TLS), ("downloads", DOWNLOADS))]
    return {
        "admin": {"address": {"pipe": {"path": str(admin)}}},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def _listener(address: str, port: int, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": f"{address} {port}",
        "address": {"socket_address": {"address": address, "port_value": port}},
        "per_connection_buffer_limit_bytes": 65536,
        "filter_chains": [{"filters": [{"name": config["@type"], "typed_config": config}]}],
    }


def _cluster(node: Node, name: str, port: int) -> dict[str, Any]:
    endpoint = {"address": {"socket_address": {"address": str(BACKEND), "port_value": port}}}
    unbounded = {"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}
    return {
        "name": name,
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [unbounded]},
        "upstream_bind_config": {"source_address": {"address": str(node.inside), "port_value": 0}},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
    }
