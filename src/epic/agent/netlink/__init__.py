# SPDX-License-Identifier: Apache-2.0
"""The kernel's links, addresses, routes and neighbours."""
