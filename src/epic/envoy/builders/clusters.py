# SPDX-License-Identifier: Apache-2.0
"""The clusters: one for each port of a Service."""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.cluster.v3.cluster_pb2 import Cluster as EnvoyCluster
from envoy.type.v3.percent_pb2 import Percent
from google.protobuf.duration_pb2 import Duration

from epic.envoy.builders.shapes import shape_of
from epic.envoy.builders.sources import ADS, CONNECTION_BUFFER
from epic.gatewayapi.routing import Cluster

_EVERY = EnvoyCluster(
    type=EnvoyCluster.EDS,
    connect_timeout=Duration(seconds=2),
    lb_policy=EnvoyCluster.ROUND_ROBIN,
    # An endpoint behind a tunnel that is down gets nothing, be it one of few.
    common_lb_config=EnvoyCluster.CommonLbConfig(healthy_panic_threshold=Percent(value=0)),
    per_connection_buffer_limit_bytes=CONNECTION_BUFFER,
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
