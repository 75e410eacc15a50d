# SPDX-License-Identifier: Apache-2.0
"""Addresses, pure: how pools are written, what a pool must not touch, who holds what, what is free.

Both families, pools of any size: nothing walks a pool. A gateway gets an address of each family that its
pools have.
"""
