# SPDX-License-Identifier: Apache-2.0
"""Where EPIC's objects are kept: one interface, one adapter per kind of store."""
