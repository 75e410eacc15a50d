# SPDX-License-Identifier: Apache-2.0
"""Whether routers hear the node: its BIRD is asked for its BGP sessions."""
