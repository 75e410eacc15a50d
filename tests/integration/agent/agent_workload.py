# SPDX-License-Identifier: Apache-2.0
"""A workload node behind NAT, with its agent, a backend and the REST API that it asks for its tunnels."""

from __future__ import annotations

import json
import queue
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from agent_control import GATEWAY, INSIDE, INSIDE6, KEY, SERVICE, TUNNEL_ID, Keys
from agent_namespaces import Namespace
from agent_node import AGENT_ENVIRONMENT, FAR, UNDERLAY, Node

ADDRESS = "192.168.50.11"
ROUTER = "192.168.50.1"
ADDRESS6, ROUTER6 = "fd00:50::11", "fd00:50::1"
MANIFESTS = """
apiVersion: puregw.epic-gateway.org/v1
kind: GatewayClassConfig
metadata: {name: epic, namespace: shop}
spec:
  epic: {gateway-hostname: "127.0.0.1:8443", service-account: shop, service-key: secret, user-namespace: shop,
         gateway-template: http, cluster-name: lab}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: epic}
spec:
  controllerName: epic-gateway.org/puregw
  parametersRef: {group: puregw.epic-gateway.org, kind: GatewayClassConfig, namespace: shop, name: epic}
"""
_NAT = """
table inet nat {
  chain post {
    type nat hook postrouting priority srcnat;
    oifname "up0" masquerade
  }
}
table inet firewall {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname "lan0" accept
  }
}
"""


def tunnel_list(
    *backends: str, keys: Keys = ((1, KEY),), signing: int = 1, epic: str = UNDERLAY
) -> dict[str, object]:
    """What the REST API lists for the node."""
    tunnel = {
        "id": TUNNEL_ID,
        "gateway": GATEWAY,
        "service": SERVICE,
        "inside-address": str(INSIDE),
        "inside-address6": str(INSIDE6),
        "epic-address": epic,
        "epic-port": 6080,
        "keys": [{"epoch": epoch, "secret": secret.hex()} for epoch, secret in keys],
        "signing-epoch": signing,
        "endpoints": list(backends),
    }
    return {"tunnels": [tunnel] if backends else []}


class Api:
    """GET /api/epic/accounts/shop/tunnels with watch, and PUT of measurements; nothing else."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._server: ThreadingHTTPServer | None = None
        self._watchers: list[queue.Queue[dict[str, object] | None]] = []
        self.content = tunnel_list(ADDRESS)
        self.paths: list[str] = []
        self.measured: list[dict[str, Any]] = []

    def start(self) -> None:
        """Listen in the network namespace of the thread."""
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                api.paths.append(self.path)
                if "/tunnels?" not in self.path:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                events = api.watcher()
                while (data := events.get()) is not None:
                    event = f"event: tunnels\ndata: {json.dumps(data)}\n\n".encode()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
                self.wfile.write(b"0\r\n\r\n")

            def do_PUT(self) -> None:
                length = int(self.headers["Content-Length"])
                api.measured.append(json.loads(self.rfile.read(length)))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *arguments: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 8443), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._directory / "server.crt", self._directory / "server.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def watcher(self) -> queue.Queue[dict[str, object] | None]:
        """A new watch: hears the list at once and at each change, None at the end."""
        events: queue.Queue[dict[str, object] | None] = queue.Queue()
        events.put(self.content)
        self._watchers.append(events)
        return events

    def publish(self, content: dict[str, object]) -> None:
        """This is the list from now on."""
        self.content = content
        for events in self._watchers:
            events.put(content)

    def stop(self) -> None:
        """Be gone."""
        if self._server is not None:
            for events in self._watchers:
                events.put(None)
            self._watchers.clear()
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class Workload:
    """The node; its default route leads to the EPIC node's underlay, through NAT for IPv4 if wanted."""

    def __init__(
        self, node: Node, directory: Path, pins: Path, *, nat: bool = True, **underlay: object
    ) -> None:
        self._nat = nat
        self.namespace = Namespace()
        self.directory = directory
        self.pins = pins
        self.api = Api(node.directory)
        self._wire(node)
        self._agent: subprocess.Popen[bytes] | None = None
        self._backend: subprocess.Popen[bytes] | None = None
        (directory / "manifests").mkdir(parents=True)
        (directory / "manifests" / "epic.yaml").write_text(MANIFESTS, encoding="utf-8")
        self._settings: dict[str, object] = {
            "role": "workload",
            "node_name": "node1",
            "cluster": "lab",
            "underlay": underlay or {"interface": "up0", "address": ADDRESS},
            "manifests": str(directory / "manifests"),
            "ca": str(node.directory / "ca.crt"),
            "state_directory": str(directory / "state"),
            "run_directory": str(directory / "run"),
            "pin_directory": str(pins),
        }
        self.configure()

    def configure(self, **settings: object) -> None:
        """Write the agent's settings, with these changes to what they were."""
        self._settings |= settings
        (self.directory / "agent.yaml").write_text(yaml.safe_dump(self._settings), encoding="utf-8")

    def _wire(self, node: Node) -> None:
        node.far.sysctl("ip_forward", 1)
        node.far.veth("lan0", self.namespace, "up0")
        node.far.run(f"ip addr add {ROUTER}/24 dev lan0")
        if self._nat:
            rules = self.directory / "nat.nft"
            rules.write_text(_NAT, encoding="utf-8")
            node.far.run(f"nft -f {rules}")
        else:
            node.node.run(f"ip route add 192.168.0.0/16 via {FAR}")
            node.far.run("sysctl -qw net.ipv6.conf.all.forwarding=1")
            node.far.run(f"ip addr add {ROUTER6}/64 dev lan0 nodad")
            self.namespace.run(
                f"ip addr add {ADDRESS6}/64 dev up0 nodad", f"ip route add default via {ROUTER6}"
            )
        # Strict, which is harder than the loose mode that the roles set.
        self.namespace.sysctl("conf/all/rp_filter", 1)
        self.namespace.run(f"ip addr add {ADDRESS}/24 dev up0", f"ip route add default via {ROUTER}")

    def start_api(self) -> None:
        with self.namespace:
            self.api.start()

    def start_agent(self, *arguments: str) -> None:
        code = "from epic.agent.main import main; main()"
        command = [sys.executable, "-c", code, "--config", self.directory / "agent.yaml", *arguments]
        with self.namespace:
            self._agent = subprocess.Popen(command, env=AGENT_ENVIRONMENT)

    def stop_agent(self) -> None:
        assert self._agent is not None
        self._agent.terminate()
        assert self._agent.wait(15) == 0
        self._agent = None

    def clean_up(self) -> None:
        self.start_agent("--cleanup")
        assert self._agent is not None
        assert self._agent.wait(60) == 0
        self._agent = None

    def start_backend(self, namespace: Namespace | None = None) -> None:
        """A web server whose one page is larger than a packet."""
        pages = self.directory / "pages"
        pages.mkdir()
        (pages / "index.html").write_text("backend " * 1000, encoding="utf-8")
        server = ["-m", "http.server", "--bind", "::", "--directory", str(pages), "8080"]
        with namespace or self.namespace:
            self._backend = subprocess.Popen([sys.executable, *server], stderr=subprocess.DEVNULL)

    def close(self) -> None:
        self.api.stop()
        for process in (self._agent, self._backend):
            if process is not None:
                process.kill()
                process.wait()
        self.clean_up()
        self.namespace.close()
