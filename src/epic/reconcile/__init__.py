# SPDX-License-Identifier: Apache-2.0
"""Reconcilers: work for one key at a time, from what is to what is wanted, each failing alone."""
