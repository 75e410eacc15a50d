# SPDX-License-Identifier: Apache-2.0
"""Delta ADS itself: both ends of the stream, of whatever resources."""
