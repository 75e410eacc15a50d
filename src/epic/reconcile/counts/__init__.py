# SPDX-License-Identifier: Apache-2.0
"""What there is, kept at the cost of each change."""
