# SPDX-License-Identifier: Apache-2.0
"""Tunnels: what their ends ask for, and what they say."""
