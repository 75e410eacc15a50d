# SPDX-License-Identifier: Apache-2.0
"""The tunnels of gateways: what they are to be, and how many there may be."""
