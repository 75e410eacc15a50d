# SPDX-License-Identifier: Apache-2.0
"""From Gateway API objects to the routing model and the status of listeners and routes. Pure."""
