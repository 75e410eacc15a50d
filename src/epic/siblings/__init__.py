# SPDX-License-Identifier: Apache-2.0
"""Siblings: the instances of a gateway that live, the list that their nodes get, and who waits for whom."""
