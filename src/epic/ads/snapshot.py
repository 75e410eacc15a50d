# SPDX-License-Identifier: Apache-2.0
"""What a node should have: resources by type and name, each with a version that is a hash of its content."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

_PREFIX = "type.googleapis.com/"

INSTANCE = _PREFIX + "epic.v1.Instance"
SIBLINGS = _PREFIX + "epic.v1.Siblings"
TUNNEL = _PREFIX + "epic.v1.Tunnel"
ENDPOINT = _PREFIX + "epic.v1.Endpoint"
NODE_STATE = _PREFIX + "epic.v1.NodeState"
WORKLOAD_TUNNEL = _PREFIX + "epic.v1.WorkloadTunnel"
CLUSTER = _PREFIX + "envoy.config.cluster.v3.Cluster"
LOAD_ASSIGNMENT = _PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = _PREFIX + "envoy.config.listener.v3.Listener"
ROUTE_CONFIGURATION = _PREFIX + "envoy.config.route.v3.RouteConfiguration"

ENVOY_TYPES = (CLUSTER, LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION)
"""Envoy's types in the order in which additions must arrive."""

TYPES = (INSTANCE, SIBLINGS, TUNNEL, ENDPOINT, *ENVOY_TYPES, NODE_STATE)
"""All types in the order in which additions must arrive; removals go the other way, but what the node is
to report comes after everything."""

WORKLOAD_TYPES = (WORKLOAD_TUNNEL, NODE_STATE)
"""The same for workload nodes."""


@dataclass(frozen=True, slots=True)
class Versioned:
    """A resource's content, encoded, and the hash of it.

    There are hundreds of thousands: as bytes they take a third of the memory that messages take.
    """

    version: str
    type_url: str
    value: bytes = field(compare=False, repr=False)

    @property
    def body(self) -> Any:
        """As it is sent."""
        return Any(type_url=self.type_url, value=self.value)


Resources = Mapping[str, Versioned]
Snapshot = Mapping[str, Resources]
Differing = Mapping[str, Collection[str]]
"""By type all names that are other than they were, or gone."""
Changes = Mapping[str, Mapping[str, Versioned | None]]
"""By type and name what is new or other than it was; None: it is gone."""


def difference(before: Snapshot, after: Snapshot) -> Changes:
    """What makes the one into the other; types that are the same object in both are not gone through."""
    found: dict[str, Mapping[str, Versioned | None]] = {}
    for type_url in before.keys() | after.keys():
        old, new = before.get(type_url, {}), after.get(type_url, {})
        if old is not new:
            changed: dict[str, Versioned | None] = dict.fromkeys(old.keys() - new.keys())
            changed.update((name, r) for name, r in new.items() if old.get(name) != r)
            if changed:
                found[type_url] = changed
    return found


def versioned(message: Message) -> Versioned:
    """Wrap a message; equal messages get equal versions."""
    type_url = sys.intern(_PREFIX + message.DESCRIPTOR.full_name)
    return encoded(type_url, message.SerializeToString(deterministic=True))


def encoded(type_url: str, content: bytes) -> Versioned:
    """The same of a message that is encoded already."""
    version = hashlib.blake2b(content, digest_size=12).hexdigest()
    return Versioned(version, type_url, content)
