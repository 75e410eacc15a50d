# SPDX-License-Identifier: Apache-2.0
"""The client controller: from a client's Gateway API objects to gateways, routes and slices on EPIC."""
