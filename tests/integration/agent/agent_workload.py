# SPDX-License-Identifier: Apache-2.0
"""A workload node behind NAT, with its agent, a backend and the control plane that it is told by."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import yaml
from agent_control import GATEWAY, INSIDE, INSIDE6, KEY, SERVICE, TUNNEL_ID, Keys
from agent_namespaces import Namespace
from agent_node import AGENT_ENVIRONMENT, FAR, UNDERLAY, Node
from envoy.service.discovery.v3 import ads_pb2_grpc

from epic.ads.delta.connection import Refusal
from epic.ads.delta.server import DeltaServer
from epic.ads.identity.issuer import Issuer
from epic.ads.snapshot import NODE_STATE, WORKLOAD_TUNNEL, Snapshot, versioned
from epic.proto import epic_pb2, epic_pb2_grpc

NAME = "shop/lab/node1"
PORT = 18001
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


def tunnel_list(*backends: str, keys: Keys = ((1, KEY),), signing: int = 1, epic: str = UNDERLAY) -> Snapshot:
    """What the control plane has for the node."""
    tunnel = epic_pb2.WorkloadTunnel(
        id=TUNNEL_ID,
        gateway=GATEWAY,
        service=SERVICE,
        inside_address=str(INSIDE),
        inside_address6=str(INSIDE6),
        epic_address=epic,
        epic_port=6080,
        keys=[epic_pb2.Key(epoch=epoch, secret=secret) for epoch, secret in keys],
        signing_epoch=signing,
        endpoints=backends,
    )
    return {WORKLOAD_TUNNEL: {str(TUNNEL_ID): versioned(tunnel)} if backends else {}}


class Api(epic_pb2_grpc.WorkloadServiceServicer):
    """The control plane of the node: gives it a certificate, tells it of its tunnels, takes its reports.

    It has threads of its own: tests wait for their requests.
    """

    def __init__(self, directory: Path) -> None:
        self._issuer = Issuer(directory / "agents.crt", directory / "agents.key", directory / "ca.crt")
        self._directory = directory
        self._rest: ThreadingHTTPServer | None = None
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._ended = asyncio.Event()
        self._ads = DeltaServer(self, lambda name, _: None if name == NAME else Refusal(f"{name} is unknown"))
        self._revision = 0
        self.paths: list[str] = []
        self.measured: list[epic_pb2.WorkloadReport] = []
        self.publish(tunnel_list(ADDRESS))

    def start(self, namespace: Namespace) -> None:
        """Listen in the network namespace."""
        with namespace:
            self._start_rest()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve(namespace)))
        self._thread.start()

    async def _serve(self, namespace: Namespace) -> None:
        pair = ((self._directory / "server.key").read_bytes(), (self._directory / "server.crt").read_bytes())
        server = grpc.aio.server()
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self._ads, server)
        epic_pb2_grpc.add_WorkloadServiceServicer_to_server(self, server)
        credentials = grpc.ssl_server_credentials([pair], self._issuer.certificate.read_bytes(), True)
        with namespace:
            server.add_secure_port(f"127.0.0.1:{PORT}", credentials)
        await server.start()
        await self._ended.wait()
        await server.stop(None)

    def _start_rest(self) -> None:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send_error(404)

            def do_POST(self) -> None:
                api.paths.append(self.path)
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if "/workload-nodes/certificates?" not in self.path:
                    self.send_error(404)
                    return
                reply = json.dumps(api.certify(body["request"])).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *arguments: object) -> None: ...

        self._rest = ThreadingHTTPServer(("127.0.0.1", 8443), Handler)
        self._rest.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._directory / "server.crt", self._directory / "server.key")
        self._rest.socket = context.wrap_socket(self._rest.socket, server_side=True)
        threading.Thread(target=self._rest.serve_forever, daemon=True).start()

    def certify(self, request: str) -> dict[str, object]:
        """A certificate for the node."""
        made = self._issuer.issue_workload("epic-workload:shop/lab/node1/shop/shop/x", request.encode())
        return {
            "certificate": made.certificate.decode(),
            "issuer": self._issuer.certificate.read_text(),
            "authorities": made.authorities.decode(),
            "port": PORT,
        }

    def publish(self, content: Snapshot) -> None:
        """This is what the node is to have from now on."""
        self._revision += 1
        state = versioned(epic_pb2.NodeState(revision=self._revision))
        content = {**content, NODE_STATE: {"node": state}}
        self._loop.call_soon_threadsafe(self._ads.publish, NAME, content)

    async def Report(  # noqa: N802 - the name that gRPC calls
        self, request_iterator: AsyncIterator[epic_pb2.WorkloadReport], context: object
    ) -> epic_pb2.WorkloadReportReply:
        report = epic_pb2.WorkloadReport()
        async for part in request_iterator:
            report.MergeFrom(part)
        self.measured.append(report)
        return epic_pb2.WorkloadReportReply()

    def stop(self) -> None:
        """Be gone."""
        if self._rest is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join()
            self._loop.close()
            self._rest.shutdown()
            self._rest.server_close()
            self._rest = None

    def on_ack(self, node_id: str, type_url: str, acked: Mapping[str, str]) -> None: ...

    def on_nack(self, node_id: str, type_url: str, message: str) -> None: ...

    def on_disconnect(self, node_id: str) -> None: ...


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
        self.api.start(self.namespace)

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
