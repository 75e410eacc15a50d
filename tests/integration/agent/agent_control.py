# SPDX-License-Identifier: Apache-2.0
"""A control plane in the test's process: publishes snapshots, takes reports; mTLS as in production."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import grpc
from agent_namespaces import Namespace
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2 as _router  # noqa: F401 - for Any
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as _manager,  # noqa: F401 - for Any
)
from envoy.service.discovery.v3 import ads_pb2_grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from epic.ads.delta.connection import Refusal
from epic.ads.delta.server import DeltaServer
from epic.ads.snapshot import (
    CLUSTER,
    ENDPOINT,
    INSTANCE,
    LISTENER,
    LOAD_ASSIGNMENT,
    NODE_STATE,
    ROUTE_CONFIGURATION,
    SIBLINGS,
    TUNNEL,
    Snapshot,
    versioned,
)
from epic.model.values.naming import instance_interface
from epic.pki import operations
from epic.pki.operations import Pki
from epic.proto import epic_pb2, epic_pb2_grpc

NODE = "epic1"
GATEWAY = "shop.web"
PUBLIC, INSIDE = IPv4Address("203.0.113.7"), IPv4Address("100.64.0.1")
PUBLIC6 = IPv6Address("2001:db8::7")
INSIDE6 = IPv6Address("fd65:7069:6300::6440:1")
INTERFACE = instance_interface(GATEWAY, INSIDE)
TUNNEL_ID, SERVICE, KEY = 7, 3, bytes(range(16))
Keys = tuple[tuple[int, bytes], ...]

_ADS = {"ads": {}, "resource_api_version": "V3"}
_EXTENSIONS = "type.googleapis.com/envoy.extensions.filters"


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """What a snapshot says of the gateway."""

    id: str = GATEWAY
    revision: str = "r1"
    port: int = 80
    broken: bool = False
    """Envoy refuses its listener."""
    forward: bool = False
    """To the backends; otherwise it answers by itself."""
    hold: bool = False
    drain_seconds: int | None = None
    """Of a gateway that is being drained."""
    keys: Keys = ((1, KEY),)
    signing: int = 1
    publics: tuple[IPv4Address | IPv6Address, ...] = (PUBLIC,)
    declared: str = "192.168.50.11"
    """Address of the tunnel's far end."""

    def snapshot(self, *backends: str) -> Snapshot:
        """It, with endpoints there."""
        endpoints = [
            epic_pb2.Endpoint(gateway=self.id, inside_address=inside_of(a), address=a, tunnel=TUNNEL_ID)
            for a in backends
        ]
        return {
            INSTANCE: {self.id: versioned(self._instance())},
            TUNNEL: {str(TUNNEL_ID): versioned(self._tunnel())},
            ENDPOINT: {f"{self.id}/{e.address}": versioned(e) for e in endpoints},
            CLUSTER: {f"{self.id}/backend": versioned(_cluster())},
            LOAD_ASSIGNMENT: {f"{self.id}/backend": versioned(_assignment(backends))},
            LISTENER: {f"{self.id}/http": versioned(_listener(self.publics, self.broken, self.port))},
            ROUTE_CONFIGURATION: {f"{self.id}/http": versioned(_route(self.forward))},
        }

    def _instance(self) -> epic_pb2.Instance:
        return epic_pb2.Instance(
            gateway=self.id,
            account="shop",
            service=SERVICE,
            public_addresses=map(str, self.publics),
            inside_address=str(INSIDE),
            inside_address6=str(INSIDE6),
            interface=instance_interface(self.id, INSIDE),
            ports=[epic_pb2.Port(number=self.port, protocol="tcp")],
            revision=self.revision,
            draining=self.drain_seconds is not None,
            drain_seconds=self.drain_seconds or 0,
            hold=self.hold,
        )

    def _tunnel(self) -> epic_pb2.Tunnel:
        return epic_pb2.Tunnel(
            id=TUNNEL_ID,
            gateway=self.id,
            service=SERVICE,
            inside_address=str(INSIDE),
            inside_address6=str(INSIDE6),
            declared_address=self.declared,
            keys=[epic_pb2.Key(epoch=epoch, secret=secret) for epoch, secret in self.keys],
            signing_epoch=self.signing,
        )


def snapshot(*backends: str) -> Snapshot:
    """The gateway as it usually is, with endpoints there."""
    return Gateway().snapshot(*backends)


def with_siblings(
    content: Snapshot,
    *nodes: str,
    keys: Keys = ((1, KEY),),
    publics: tuple[IPv4Address | IPv6Address, ...] = (PUBLIC,),
) -> Snapshot:
    """The same, with siblings on these nodes, each `NAME ADDRESS`, in this order and with these indexes."""
    siblings = epic_pb2.Siblings(
        gateway=GATEWAY,
        public_addresses=map(str, publics),
        siblings=[
            epic_pb2.Sibling(node=name, index=index, address=address)
            for index, (name, address) in enumerate(node.split() for node in nodes)
        ],
        keys=[epic_pb2.Key(epoch=epoch, secret=secret) for epoch, secret in keys],
        signing_epoch=max(epoch for epoch, _ in keys),
    )
    return {**content, SIBLINGS: {GATEWAY: versioned(siblings)}}


def with_state(content: Snapshot, digest: str, *, removed: bool = False) -> Snapshot:
    """The same, with the word on the node."""
    state = epic_pb2.NodeState(digest=digest, removed=removed, meant_digest=digest)
    return {**content, NODE_STATE: {"node": versioned(state)}}


def inside_of(backend: str) -> str:
    """The inside address of the backend's family."""
    return str(INSIDE if ip_address(backend).version == 4 else INSIDE6)


def _cluster() -> Message:
    data = {
        "name": "backend",
        "type": "EDS",
        "connect_timeout": "1s",
        "eds_cluster_config": {"eds_config": _ADS},
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
    }
    return ParseDict(data, cluster_pb2.Cluster())


def _assignment(backends: tuple[str, ...]) -> Message:
    hosts = [
        {"endpoint": {"address": {"socket_address": {"address": a, "port_value": 8080}}}} for a in backends
    ]
    data = {"cluster_name": "backend", "endpoints": [{"lb_endpoints": hosts}] if hosts else []}
    return ParseDict(data, endpoint_pb2.ClusterLoadAssignment())


def _listener(publics: tuple[IPv4Address | IPv6Address, ...], broken: bool, port: int) -> Message:
    manager = {
        "@type": f"{_EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "rds": {"route_config_name": "http", "config_source": _ADS},
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": f"{_EXTENSIONS}.http.router.v3.Router"},
            }
        ],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    # An address that the instance does not have: no socket can be bound to it.
    hosts = ["198.51.100.1"] if broken else list(map(str, publics))
    first, *more = [{"socket_address": {"address": host, "port_value": port}} for host in hosts]
    data = {
        "name": "http",
        "address": first,
        "additional_addresses": [{"address": address} for address in more],
        "filter_chains": [chain],
    }
    return ParseDict(data, listener_pb2.Listener())


def _route(forward: bool) -> Message:
    answer = {"status": 200, "body": {"inline_string": "hi\n"}}
    action = {"route": {"cluster": "backend"}} if forward else {"direct_response": answer}
    routes = [{"match": {"prefix": "/"}, **action}]
    data = {"name": "http", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}
    return ParseDict(data, route_pb2.RouteConfiguration())


def write_certificates(directory: Path, life: timedelta = timedelta(days=1)) -> None:
    """The authorities, the server's certificate and the node's identity, under their names in production."""
    pki = Pki(directory, datetime.now(UTC).replace(microsecond=0))
    operations.control(pki, ["127.0.0.1"], None, timedelta(days=1))
    request = operations.request(pki, NODE, renew=True)["request"]
    operations.install(pki, operations.sign(pki, NODE, request.encode(), life)["certificate"].encode())


class Control(epic_pb2_grpc.AgentServiceServicer):
    """What the agent connects to. `refusals` are the agent's own NACKs."""

    def __init__(self) -> None:
        self.refusals: list[str] = []
        self.published: Snapshot = {}
        self.taken: dict[str, dict[str, str]] = {}
        """Names and versions that the agent has acknowledged, by type."""
        self.reports: list[epic_pb2.NodeReport] = []
        """Those of the instances alone with what the node said last of its tunnels."""
        self._reported = asyncio.Event()
        self._removed = False
        self._ads = DeltaServer(self, self._refusal)
        self._server: grpc.aio.Server | None = None

    async def start(self, namespace: Namespace, pki: Path, port: int) -> None:
        """Listen on the loopback address of the network namespace."""
        self._place = namespace, pki, port
        pair = ((pki / "server.key").read_bytes(), (pki / "server.crt").read_bytes())
        credentials = grpc.ssl_server_credentials([pair], (pki / "agents.crt").read_bytes(), True)
        self._server = grpc.aio.server()
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self._ads, self._server)
        epic_pb2_grpc.add_AgentServiceServicer_to_server(self, self._server)
        with namespace:
            self._server.add_secure_port(f"127.0.0.1:{port}", credentials)
        await self._server.start()

    async def stop(self) -> None:
        """Be gone."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def remove_node(self) -> None:
        """The node is none any more; its stream ends."""
        self._removed = True
        await self.stop()
        await self.start(*self._place)

    def _refusal(self, node: str, _: object) -> Refusal | None:
        if node == NODE and not self._removed:
            return None
        return Refusal(f"node {node} is unknown", removed=self._removed)

    def publish(self, content: Snapshot) -> None:
        """This is what the node should have; the word on the node is added unless it is there."""
        if NODE_STATE not in content:
            instances = content.get(INSTANCE, {})
            content = with_state(content, ",".join(r.version for _, r in sorted(instances.items())) or "none")
        self.published = content
        self._ads.publish(NODE, content)

    async def Report(  # noqa: N802 - the name that gRPC calls
        self, request: epic_pb2.NodeReport, context: object
    ) -> epic_pb2.NodeReportReply:
        if request.instances_only and self.reports:
            last = self.reports[-1]
            request.MergeFrom(epic_pb2.NodeReport(tunnels=last.tunnels, drops=last.drops))
        self.reports.append(request)
        self._reported.set()
        return epic_pb2.NodeReportReply()

    async def report(self, matches: object, within: float = 8) -> epic_pb2.NodeReport:
        """The first report from now on, or the last one before, for which `matches` is true."""
        assert callable(matches)
        async with asyncio.timeout(within):
            while not self.reports or not matches(self.reports[-1]):
                self._reported.clear()
                await self._reported.wait()
        return self.reports[-1]

    def on_ack(self, node_id: str, type_url: str, acked: dict[str, str]) -> None:
        self.taken[type_url] = dict(acked)

    def on_nack(self, node_id: str, type_url: str, message: str) -> None:
        self.refusals.append(message)

    def on_disconnect(self, node_id: str) -> None: ...
