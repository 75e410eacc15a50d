# SPDX-License-Identifier: Apache-2.0
"""EPIC: Gateway as a Service outside the clusters whose applications it publishes."""

__version__ = "0.1.0"
