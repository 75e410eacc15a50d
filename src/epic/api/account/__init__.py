# SPDX-License-Identifier: Apache-2.0
"""Accounts: users, limits, gateway templates."""
