# SPDX-License-Identifier: Apache-2.0
"""What EPIC nodes should have, from the objects in the store."""
