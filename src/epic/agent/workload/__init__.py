# SPDX-License-Identifier: Apache-2.0
"""The workload role: a node of a client."""
