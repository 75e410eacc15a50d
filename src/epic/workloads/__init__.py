# SPDX-License-Identifier: Apache-2.0
"""Workload nodes at the control plane: who they are, what they are told over delta ADS, and what they say."""
