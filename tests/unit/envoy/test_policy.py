# SPDX-License-Identifier: Apache-2.0
"""That nothing which a template may render leads to a cluster that the policy does not look at."""

from __future__ import annotations

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from epic.envoy.extensions import ALLOWED
from epic.envoy.policy import CLUSTER_HEADERS, CLUSTER_REFERENCES, FORBIDDEN

NO_REFERENCES = {
    # a name of its own, checked when it is rendered
    ("envoy.config.cluster.v3.Cluster", "alt_stat_name"),
    ("envoy.config.endpoint.v3.ClusterLoadAssignment", "cluster_name"),
    # of plugins, which are no allowed extension
    ("envoy.config.route.v3.RouteAction", "cluster_specifier_plugin"),
    # only looks at the name
    ("envoy.extensions.filters.http.fault.v3.HTTPFault", "upstream_cluster"),
}


def descriptors() -> dict[str, Descriptor]:
    """Every message that can be part of what a template renders."""
    found: dict[str, Descriptor] = {}
    waiting = [message.DESCRIPTOR for message in (Cluster, Listener, RouteConfiguration, *ALLOWED.values())]
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name not in found and descriptor.full_name not in FORBIDDEN:
            found[descriptor.full_name] = descriptor
            waiting += [field.message_type for field in descriptor.fields if field.message_type]
    return found


def test_every_field_that_names_a_cluster_is_looked_at() -> None:
    fields = {
        (name, field.name)
        for name, descriptor in descriptors().items()
        for field in descriptor.fields
        if (field.type == FieldDescriptor.TYPE_STRING and "cluster" in field.name)
        or (descriptor.name == "ClusterWeight" and field.name == "name")
    }
    headers = {(name, field) for name, fields in CLUSTER_HEADERS.items() for field in fields}
    assert fields - NO_REFERENCES == headers | set(CLUSTER_REFERENCES.items())
