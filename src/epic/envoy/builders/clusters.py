# SPDX-License-Identifier: Apache-2.0
"""The clusters: one for each port of a Service."""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.cluster.v3.circuit_breaker_pb2 import CircuitBreakers
from envoy.config.cluster.v3.cluster_pb2 import Cluster as EnvoyCluster
from envoy.type.v3.percent_pb2 import Percent
from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import UInt32Value

from epic.envoy.builders.shapes import shape_of
from epic.envoy.builders.sources import ADS, CONNECTION_BUFFER
from epic.gatewayapi.routing import Cluster

# Ten times Envoy's own, which is a mesh's. Each that hangs costs an Envoy 44 to 74 KB: one backend that
# hangs must not take all of its memory (1 GB where nothing else is said), for then everybody is refused.
_MOST = UInt32Value(value=10_000)
_THRESHOLDS = CircuitBreakers.Thresholds(
    max_connections=_MOST, max_pending_requests=_MOST, max_requests=_MOST
)

_EVERY = EnvoyCluster(
    type=EnvoyCluster.EDS,
    connect_timeout=Duration(seconds=2),
    lb_policy=EnvoyCluster.ROUND_ROBIN,
    # An endpoint behind a tunnel that is down gets nothing, be it one of few.
    common_lb_config=EnvoyCluster.CommonLbConfig(healthy_panic_threshold=Percent(value=0)),
    per_connection_buffer_limit_bytes=CONNECTION_BUFFER,
    circuit_breakers=CircuitBreakers(thresholds=[_THRESHOLDS]),
    eds_cluster_config=EnvoyCluster.EdsClusterConfig(eds_config=ADS),
)


def build_clusters(clusters: Iterable[Cluster]) -> dict[str, EnvoyCluster]:
    """Them by name, in order."""
    return {name: build_cluster(name) for name in sorted(cluster.name for cluster in clusters)}


def build_cluster(name: str) -> EnvoyCluster:
    """A cluster whose endpoints come by EDS."""
    cluster = EnvoyCluster()
    cluster.CopyFrom(_EVERY)
    cluster.name = name
    return cluster


SHAPE = shape_of(build_cluster("svc/UID/80"))
"""That of each of them."""
