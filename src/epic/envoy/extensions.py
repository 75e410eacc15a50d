# SPDX-License-Identifier: Apache-2.0
"""The Envoy extensions that templates may use.

Left out on purpose: what runs code (Lua, Wasm, dynamic modules), what calls other services (external
authorization, rate limits, tracing, gRPC access logs) and what takes addresses from requests (dynamic
forward proxy, original destination): through them a tenant could leave its own gateway.
"""

from __future__ import annotations

from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2
from envoy.extensions.compression.brotli.compressor.v3 import brotli_pb2
from envoy.extensions.compression.gzip.compressor.v3 import gzip_pb2
from envoy.extensions.filters.http.bandwidth_limit.v3 import bandwidth_limit_pb2
from envoy.extensions.filters.http.buffer.v3 import buffer_pb2
from envoy.extensions.filters.http.compressor.v3 import compressor_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.csrf.v3 import csrf_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.grpc_stats.v3 import config_pb2
from envoy.extensions.filters.http.grpc_web.v3 import grpc_web_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.connection_limit.v3 import connection_limit_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.local_ratelimit.v3 import (
    local_rate_limit_pb2 as network_local_rate_limit_pb2,
)
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.load_balancing_policies.least_request.v3 import least_request_pb2
from envoy.extensions.load_balancing_policies.maglev.v3 import maglev_pb2
from envoy.extensions.load_balancing_policies.random.v3 import random_pb2
from envoy.extensions.load_balancing_policies.ring_hash.v3 import ring_hash_pb2
from envoy.extensions.load_balancing_policies.round_robin.v3 import round_robin_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf.message import Message

ALLOWED: dict[str, type[Message]] = {
    message.DESCRIPTOR.full_name: message
    for message in (
        bandwidth_limit_pb2.BandwidthLimit,
        brotli_pb2.Brotli,
        buffer_pb2.Buffer,
        buffer_pb2.BufferPerRoute,
        compressor_pb2.Compressor,
        compressor_pb2.CompressorPerRoute,
        config_pb2.FilterConfig,
        connection_limit_pb2.ConnectionLimit,
        cors_pb2.Cors,
        cors_pb2.CorsPolicy,
        csrf_pb2.CsrfPolicy,
        fault_pb2.HTTPFault,
        file_pb2.FileAccessLog,
        grpc_web_pb2.GrpcWeb,
        gzip_pb2.Gzip,
        header_mutation_pb2.HeaderMutation,
        header_mutation_pb2.HeaderMutationPerRoute,
        http_connection_manager_pb2.HttpConnectionManager,
        http_protocol_options_pb2.HttpProtocolOptions,
        least_request_pb2.LeastRequest,
        local_rate_limit_pb2.LocalRateLimit,
        maglev_pb2.Maglev,
        network_local_rate_limit_pb2.LocalRateLimit,
        network_rbac_pb2.RBAC,
        random_pb2.Random,
        rbac_pb2.RBAC,
        rbac_pb2.RBACPerRoute,
        ring_hash_pb2.RingHash,
        round_robin_pb2.RoundRobin,
        router_pb2.Router,
        stream_pb2.StderrAccessLog,
        stream_pb2.StdoutAccessLog,
        tcp_proxy_pb2.TcpProxy,
    )
}
"""Message types by full name that a `typed_config` may hold."""
