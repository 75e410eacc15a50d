# SPDX-License-Identifier: Apache-2.0
"""Where Envoy gets what a resource refers to, and how much it keeps of a connection."""

from __future__ import annotations

from envoy.config.core.v3.config_source_pb2 import AggregatedConfigSource, ApiVersion, ConfigSource
from google.protobuf.wrappers_pb2 import UInt32Value

ADS = ConfigSource(ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3)
"""From the node's agent, as everything else."""

CONNECTION_BUFFER = UInt32Value(value=64 << 10)
"""Bytes that Envoy reads ahead of a connection's other side, either way."""
