# SPDX-License-Identifier: Apache-2.0
"""What a node should have: resources by type and name, each with a version that is a hash of its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

_PREFIX = "type.googleapis.com/"

INSTANCE = _PREFIX + "epic.v1.Instance"
SIBLINGS = _PREFIX + "epic.v1.Siblings"
TUNNEL = _PREFIX + "epic.v1.Tunnel"
ENDPOINT = _PREFIX + "epic.v1.Endpoint"
NODE_STATE = _PREFIX + "epic.v1.NodeState"
CLUSTER = _PREFIX + "envoy.config.cluster.v3.Cluster"
LOAD_ASSIGNMENT = _PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = _PREFIX + "envoy.config.listener.v3.Listener"
ROUTE_CONFIGURATION = _PREFIX + "envoy.config.route.v3.RouteConfiguration"

ENVOY_TYPES = (CLUSTER, LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION)
"""Envoy's types in the order in which additions must arrive."""

TYPES = (INSTANCE, SIBLINGS, TUNNEL, ENDPOINT, *ENVOY_TYPES, NODE_STATE)
"""All types in the order in which additions must arrive; removals go the other way, but what the node is
to report comes after everything."""


@dataclass(frozen=True, slots=True)
class Versioned:
    """A resource and the hash of its content."""

    version: str
    body: Any = field(compare=False)


Resources = Mapping[str, Versioned]
Snapshot = Mapping[str, Resources]


def versioned(message: Message) -> Versioned:
    """Wrap a message; equal messages get equal versions."""
    return encoded(_PREFIX + message.DESCRIPTOR.full_name, message.SerializeToString(deterministic=True))


def encoded(type_url: str, content: bytes) -> Versioned:
    """The same of a message that is encoded already."""
    version = hashlib.blake2b(content, digest_size=12).hexdigest()
    return Versioned(version, Any(type_url=type_url, value=content))
