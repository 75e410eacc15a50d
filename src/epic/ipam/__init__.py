# SPDX-License-Identifier: Apache-2.0
"""Addresses, pure: how pools are written, what a pool must not touch, who holds what, what is free.

Both families, pools of any size: nothing walks a pool. Gateways get IPv4 addresses; the rooms that serve
IPv6 ones find their pools and claims here.
"""
