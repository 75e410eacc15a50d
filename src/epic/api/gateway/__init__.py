# SPDX-License-Identifier: Apache-2.0
"""Gateways and what they are made of."""
