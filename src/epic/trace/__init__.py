# SPDX-License-Identifier: Apache-2.0
"""epic-trace: packets followed through the tunnel's programs."""
