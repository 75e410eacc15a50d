# SPDX-License-Identifier: Apache-2.0
"""EPIC's resources as typed data: field names on the wire, defaults, validation. No I/O."""
