# SPDX-License-Identifier: Apache-2.0
"""Nodes, the platform's and clients', and the runs on them."""
