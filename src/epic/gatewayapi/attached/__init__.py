# SPDX-License-Identifier: Apache-2.0
"""The routes of a gateway, the oldest first, as far as they fit. Pure."""
