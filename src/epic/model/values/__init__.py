# SPDX-License-Identifier: Apache-2.0
"""Values that fields of resources have."""
