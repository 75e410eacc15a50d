# SPDX-License-Identifier: Apache-2.0
"""The life of instances, nodes and tunnels: pure functions from what is known to what comes next."""
