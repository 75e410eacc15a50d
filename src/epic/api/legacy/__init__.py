# SPDX-License-Identifier: Apache-2.0
"""The original's first API: Services of type LoadBalancer, and the endpoints of their clusters."""
