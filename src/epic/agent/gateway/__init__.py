# SPDX-License-Identifier: Apache-2.0
"""The gateway role: an EPIC node."""
