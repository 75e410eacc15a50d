# SPDX-License-Identifier: Apache-2.0
"""What a rendered resource may hold, whoever wrote the template.

An Envoy shares its node with those of other accounts. Its network namespace confines what it can reach by
address; what is left are files, Unix sockets, management servers and the bootstrap's cluster, which leads to
the node's agent, and those are refused here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from epic.envoy.extensions import ALLOWED
from epic.gatewayapi.names import AGENT_CLUSTER

FORBIDDEN = {
    "envoy.config.core.v3.Pipe": "a Unix socket",
    "envoy.config.core.v3.EnvoyInternalAddress": "an internal address",
    "envoy.config.core.v3.ApiConfigSource": "a management server",
    "envoy.config.core.v3.PathConfigSource": "a file",
    "envoy.config.core.v3.GrpcService": "a gRPC service",
    "envoy.config.core.v3.HttpUri": "another service",
}
# A header of the request must not choose the cluster: the bootstrap's are among them.
CLUSTER_HEADERS = {
    "envoy.config.route.v3.RouteAction": ("cluster_header",),
    "envoy.config.route.v3.RouteAction.RequestMirrorPolicy": ("cluster_header",),
    "envoy.config.route.v3.WeightedCluster.ClusterWeight": ("cluster_header",),
}
_FORBIDDEN_FIELDS = {
    "envoy.config.core.v3.ConfigSource": ("path",),
    "envoy.config.core.v3.DataSource": ("filename", "environment_variable"),
    "envoy.config.core.v3.SocketAddress": ("network_namespace_filepath", "resolver_name"),
    **CLUSTER_HEADERS,
}
CLUSTER_REFERENCES = {
    "envoy.config.route.v3.RouteAction": "cluster",
    "envoy.config.route.v3.RouteAction.RequestMirrorPolicy": "cluster",
    "envoy.config.route.v3.WeightedCluster.ClusterWeight": "name",
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy": "cluster",
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight": "name",
}
_FILE_LOG = "envoy.extensions.access_loggers.file.v3.FileAccessLog"
_STREAMS = ("/dev/stdout", "/dev/stderr")


def violations(resource: Message) -> list[str]:
    """What the resource holds against the rules, each with the place."""
    return list(_walk(resource, resource.DESCRIPTOR.name))


def _walk(message: Message, place: str) -> Iterator[str]:
    name = message.DESCRIPTOR.full_name
    if isinstance(message, Any):
        yield from _walk_any(message, place)
        return
    if name in FORBIDDEN:
        yield f"{place} names {FORBIDDEN[name]}, which is not allowed"
        return
    for field in _FORBIDDEN_FIELDS.get(name, ()):
        if getattr(message, field, None):
            yield f"{place}.{field} is not allowed"
    reference = CLUSTER_REFERENCES.get(name)
    if reference is not None and getattr(message, reference) == AGENT_CLUSTER:
        yield f"{place}.{reference} names {AGENT_CLUSTER!r}, which leads to the node's agent"
    if name == _FILE_LOG and getattr(message, "path", "") not in _STREAMS:
        yield f"{place}.path must be {' or '.join(_STREAMS)}"
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for key, child in _children(value):
                yield from _walk(child, f"{place}.{descriptor.name}{key}")


def _walk_any(message: Any, place: str) -> Iterator[str]:
    name = message.type_url.rpartition("/")[2]
    extension = ALLOWED.get(name)
    if extension is None:
        yield f"{place} has type {name!r}, which is not among the extensions that templates may use"
        return
    yield from _walk(extension.FromString(message.value), place)


def _children(value: object) -> Iterable[tuple[str, Message]]:
    if isinstance(value, Message):
        return [("", value)]
    if hasattr(value, "items"):
        return [(f"[{key}]", child) for key, child in value.items() if isinstance(child, Message)]
    assert isinstance(value, Iterable)  # noqa: S101 - a repeated field
    return [(f"[{i}]", child) for i, child in enumerate(value) if isinstance(child, Message)]
