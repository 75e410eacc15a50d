# SPDX-License-Identifier: Apache-2.0
"""Second chance: the siblings of this node's gateways."""
