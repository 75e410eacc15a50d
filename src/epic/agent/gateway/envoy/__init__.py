# SPDX-License-Identifier: Apache-2.0
"""This node's Envoys."""
