# SPDX-License-Identifier: Apache-2.0
"""epicctl: the command line of EPIC, over the REST API."""
