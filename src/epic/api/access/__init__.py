# SPDX-License-Identifier: Apache-2.0
"""Who asks, what they may reach, and how much they may ask at once."""
