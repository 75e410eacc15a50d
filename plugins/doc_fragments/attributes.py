# SPDX-License-Identifier: Apache-2.0
"""What every module of the collection says of itself."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes that all modules share."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and say what would change, without changing it.
    support: full
  diff_mode:
    description: Says in detail what changed, or would change.
    support: full
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
"""
