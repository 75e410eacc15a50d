# SPDX-License-Identifier: Apache-2.0
"""Envoy resources from rendered objects: checks, revision, instances, endpoints' ports."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
import yaml
from envoy.config.cluster.v3.cluster_pb2 import Cluster as EnvoyCluster
from google.protobuf.json_format import ParseDict

from epic.envoy.resources import bound_to, build
from epic.errors import Invalid
from epic.gatewayapi.routing import Cluster, HTTPRoute, Port, Routing, VirtualHost, WeightedCluster
from epic.model.resources import EnvoyResources
from epic.model.values.naming import GatewayId

EXTENSIONS = "type.googleapis.com/envoy.extensions"
HCM = f"{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"
TCP_PROXY = f"{EXTENSIONS}.filters.network.tcp_proxy.v3.TcpProxy"
FILE_LOG = f"{EXTENSIONS}.access_loggers.file.v3.FileAccessLog"
LUA = f"{EXTENSIONS}.filters.http.lua.v3.Lua"
PIPE = "{endpoint: {address: {pipe: {path: /x}}}}"
SERVER = "{eds_config: {api_config_source: {api_type: GRPC}}}"


def routing(path: str = "/", address: str = "203.0.113.1") -> Routing:
    route = HTTPRoute("r", "PathPrefix", path, (), (WeightedCluster("svc/svc/80", 1),))
    return Routing(
        gateway=GatewayId("root", "U1"),
        display_name="",
        addresses=(IPv4Address(address),),
        ports=(Port(80, "HTTP", virtual_hosts=(VirtualHost("*", (route,)),)),),
        clusters=(Cluster("svc", 80),),
    )


def templates(kind: str, *values: str) -> EnvoyResources:
    return EnvoyResources.model_validate(
        {kind: [{"name": f"t{i}", "value": v} for i, v in enumerate(values)]}
    )


def listener(body: str, address: str = "203.0.113.1", port: int = 80) -> EnvoyResources:
    socket = f"{{socket_address: {{address: {address}, port_value: {port}}}}}"
    return templates("listeners", f"name: l\naddress: {socket}\n{body}")


def filters(kind: str, fields: str = "") -> EnvoyResources:
    config = f"{{'@type': {kind}{fields}}}"
    return listener(f"filter_chains: [{{filters: [{{name: f, typed_config: {config}}}]}}]")


def to_agent(action: str) -> EnvoyResources:
    """A route whose action has these fields."""
    host = f"{{name: a, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{{action}}}}}]}}"
    return templates("routes", f"name: port/80\nvirtual_hosts: [{host}]")


BOTH = replace(routing(), addresses=(IPv4Address("203.0.113.1"), IPv6Address("2001:db8::1")))
SIX = "{socket_address: {address: '2001:db8::1', port_value: 80}}"


def test_listeners_of_templates_bind_all_addresses_of_a_port() -> None:
    built = build(BOTH, listener(f"additional_addresses: [{{address: {SIX}}}]"))
    assert built.listeners.keys() == {"l"}
    one = listener("").listeners[0].value
    built = build(BOTH, templates("listeners", one, f"name: six\naddress: {SIX}"))
    assert built.listeners.keys() == {"l", "six"}


@pytest.mark.parametrize(
    ("bound", "left"), [("203.0.113.1", "[2001:db8::1]:80"), ("'2001:db8::1'", "203.0.113.1:80")]
)
def test_a_listener_that_leaves_an_address_of_its_gateway_out_is_refused(bound: str, left: str) -> None:
    with pytest.raises(Invalid, match=re.escape(f"no Listener binds {left}, but one binds port 80")):
        build(BOTH, listener("", address=bound))


def test_equal_inputs_have_the_same_revision_and_others_another() -> None:
    revision = build(routing(), EnvoyResources()).revision
    assert build(routing(), EnvoyResources()).revision == revision
    assert build(routing("/x"), EnvoyResources()).revision != revision
    assert build(routing(address="203.0.113.2"), EnvoyResources()).revision != revision


INSIDE = IPv4Address("100.64.0.7"), IPv6Address("fd65:7069:6300::6440:7")


def test_connections_of_an_instance_come_from_its_inside_addresses() -> None:
    (cluster,) = build(routing(), EnvoyResources()).clusters.values()
    bound = bound_to(cluster, *INSIDE)
    assert sources(bound) == ["100.64.0.7", "fd65:7069:6300::6440:7"]
    assert not cluster.HasField("upstream_bind_config"), "the shared cluster stays as it is"


def test_a_template_cannot_choose_other_source_addresses() -> None:
    text = """
name: S1
type: EDS
eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}}
upstream_bind_config:
  source_address: {address: 192.0.2.1, port_value: 0}
  extra_source_addresses: [{address: {address: "2001:db8::1", port_value: 0}}]
  socket_options: [{level: 6, name: 9, int_value: 1}]
"""
    bound = bound_to(ParseDict(yaml.safe_load(text), EnvoyCluster()), *INSIDE)
    assert sources(bound) == ["100.64.0.7", "fd65:7069:6300::6440:7"]
    assert bound.upstream_bind_config.socket_options[0].name == 9


def sources(cluster: EnvoyCluster) -> list[str]:
    config = cluster.upstream_bind_config
    return [config.source_address.address, *(e.address.address for e in config.extra_source_addresses)]


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (
            listener("", address="198.51.100.1"),
            "Listener 'l' binds 198.51.100.1:80; it may bind only 203.0.113.1:80",
        ),
        (listener("", port=81), "it may bind only 203.0.113.1:80"),
        (
            templates("listeners", "name: l\naddress: {pipe: {path: /run/x}}"),
            "Listener.address.pipe names a Unix socket",
        ),
        (templates("clusters", "type: EDS"), "renders no name"),
        (templates("clusters", "name: a", "name: a"), "the name 'a' a second time"),
        (templates("clusters", "name: other\ntype: EDS"), "must have ClusterName as its name"),
        (templates("clusters", "name: epic-agent"), "names a cluster 'epic-agent'; such names are reserved"),
        (templates("clusters", "name: svc/other/80"), "names a cluster 'svc/other/80'; such names are"),
        (templates("clusters", "name: missing/Service/x"), "such names are reserved: use ClusterName"),
        (templates("listeners", "name: port/81"), "names a listener 'port/81'; such names are reserved"),
        (
            templates("routes", "name: port/81"),
            "names a route 'port/81'; such names are reserved: use PortName",
        ),
        (to_agent("cluster: epic-agent"), "routes[0].route.cluster names 'epic-agent'"),
        (
            to_agent("weighted_clusters: {clusters: [{name: epic-agent, weight: 1}]}"),
            "clusters[0].name names",
        ),
        (to_agent("cluster_header: x-where"), "cluster_header is not allowed"),
        (to_agent("cluster: a, request_mirror_policies: [{cluster: epic-agent}]"), "names 'epic-agent'"),
        (
            filters(TCP_PROXY, ", stat_prefix: x, cluster: epic-agent"),
            "typed_config.cluster names 'epic-agent'",
        ),
        (templates("routes", "name: other"), "route configurations that no template renders: port/80"),
        (
            templates(
                "clusters",
                f"name: a\nload_assignment: {{endpoints: [{{lb_endpoints: [{PIPE}]}}]}}",
            ),
            "Cluster.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.pipe names a Unix socket",
        ),
        (
            filters(HCM, f", access_log: [{{name: x, typed_config: {{'@type': {FILE_LOG}, path: /etc/x}}}}]"),
            "path must be /dev/stdout or /dev/stderr",
        ),
        (
            filters("type.googleapis.com/google.protobuf.StringValue", ", value: x"),
            "is not among the extensions",
        ),
        (filters(LUA), "envoy.extensions.filters.http.lua.v3.Lua"),
        (templates("clusters", "name: svc\nconnect_timeout: soon"), "connect_timeout"),
        (templates("clusters", "name: svc\nnonsense: 1"), 'no field named "nonsense"'),
        (
            templates(
                "clusters",
                f"name: svc\ntype: EDS\neds_cluster_config: {SERVER}",
            ),
            "api_config_source names a management server",
        ),
    ],
)
def test_what_a_template_may_not_render(given: EnvoyResources, fault: str) -> None:
    with pytest.raises(Invalid) as refusal:
        build(routing(), given)
    assert fault in str(refusal.value)
