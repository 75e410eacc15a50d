# SPDX-License-Identifier: Apache-2.0
"""epic-agent: what changes on a node while EPIC runs, on EPIC nodes and on nodes with backends."""
