# SPDX-License-Identifier: Apache-2.0
"""The listeners: one for each public port, with one filter chain."""

from __future__ import annotations

from collections.abc import Sequence

from envoy.config.core.v3.address_pb2 import Address, SocketAddress
from envoy.config.core.v3.protocol_pb2 import Http2ProtocolOptions, HttpProtocolOptions
from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain
from envoy.config.listener.v3.listener_pb2 import AdditionalAddress, Listener
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
    HttpFilter,
    Rds,
)
from envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from epic.envoy.builders.sources import ADS, CONNECTION_BUFFER
from epic.gatewayapi.routing import Port, Routing
from epic.model.values.addresses import Address as IPAddress

# No such cluster exists: connections are closed.
_NOWHERE = "missing/none"

HEADERS_TIMEOUT = Duration(seconds=30)
"""For a request's headers, from their first byte."""
STREAM_IDLE = Duration(seconds=300)
"""Without a byte either way. A stream that moves, be it a WebSocket, goes on for as long as it likes."""
CONNECTION_IDLE = Duration(seconds=600)
"""Of a client's connection without a request."""

_TRUE = BoolValue(value=True)
# As Envoy's documentation has it for an edge: a connection's clients make Envoy keep 1 MiB at most.
_HTTP2 = Http2ProtocolOptions(
    max_concurrent_streams=UInt32Value(value=100),
    initial_stream_window_size=UInt32Value(value=64 << 10),
    initial_connection_window_size=UInt32Value(value=1 << 20),
)


def build_listeners(routing: Routing) -> dict[str, Listener]:
    """Them by name, in order; each asks for the route configuration of its own name."""
    found = {port.name: build_listener(port, routing.addresses) for port in routing.ports}
    return dict(sorted(found.items()))


def build_listener(port: Port, publics: Sequence[IPAddress]) -> Listener:
    """The listener of a port on the gateway's public addresses, of which there is one at least."""
    first, *others = (
        Address(socket_address=SocketAddress(address=str(public), port_value=port.number))
        for public in publics
    )
    chain = FilterChain(filters=[_http(port) if port.protocol == "HTTP" else _tcp(port)])
    return Listener(
        name=port.name,
        address=first,
        additional_addresses=[AdditionalAddress(address=other) for other in others],
        per_connection_buffer_limit_bytes=CONNECTION_BUFFER,
        filter_chains=[chain],
    )


def _http(port: Port) -> Filter:
    manager = HttpConnectionManager(
        stat_prefix=port.name,
        rds=Rds(route_config_name=port.name, config_source=ADS),
        server_name="epic-gateway",
        use_remote_address=_TRUE,
        # Backends are to see the path by which the route was chosen.
        normalize_path=_TRUE,
        merge_slashes=True,
        path_with_escaped_slashes_action=HttpConnectionManager.UNESCAPE_AND_REDIRECT,
        common_http_protocol_options=HttpProtocolOptions(
            idle_timeout=CONNECTION_IDLE,
            # For many backends `A_B` is `A-B`, which proxies before them may have set or taken out.
            headers_with_underscores_action=HttpProtocolOptions.REJECT_REQUEST,
        ),
        http2_protocol_options=_HTTP2,
        request_headers_timeout=HEADERS_TIMEOUT,
        stream_idle_timeout=STREAM_IDLE,
        upgrade_configs=[HttpConnectionManager.UpgradeConfig(upgrade_type="websocket")],
        http_filters=[HttpFilter(name="envoy.filters.http.router", typed_config=_packed(Router()))],
    )
    return Filter(name="envoy.filters.network.http_connection_manager", typed_config=_packed(manager))


def _tcp(port: Port) -> Filter:
    proxy = TcpProxy(stat_prefix=port.name)
    for share in port.backends:
        proxy.weighted_clusters.clusters.add(name=share.cluster, weight=share.weight)
    if not port.backends:
        proxy.cluster = _NOWHERE
    return Filter(name="envoy.filters.network.tcp_proxy", typed_config=_packed(proxy))


def _packed(message: Message) -> Any:
    packed = Any()
    packed.Pack(message, deterministic=True)
    return packed
