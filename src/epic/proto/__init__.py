# SPDX-License-Identifier: Apache-2.0
"""Generated protobuf classes: of EPIC's own resource types, and of what the store uses of etcd's API."""
