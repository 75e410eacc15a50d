# SPDX-License-Identifier: Apache-2.0
"""From the routing model and templates to native Envoy resources, checked and with a revision."""
