# SPDX-License-Identifier: Apache-2.0
"""What both ends of tunnels have in common."""
