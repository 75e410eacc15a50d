# SPDX-License-Identifier: Apache-2.0
"""Envoy's resources of a gateway as protobuf messages, built from the routing model. Pure."""
