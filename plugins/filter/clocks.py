# Copyright: the EPIC developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A filter that compares hosts' clocks as the module preflight read them."""

from __future__ import annotations

import math
from typing import Any


def clock_fault(
    host: dict[str, float],
    answered_at: float,
    tolerance: float | str,
    reference: dict[str, float],
    reference_name: str,
) -> str:
    """What is wrong with the host's clock, with what would be right; nothing if it will do. All in seconds.

    `host` and `reference` have the host's time (`now`) and the asker's before it was read (`asked_at`);
    `answered_at` is the asker's after both. So the offset of each from the asker's clock lies between two
    bounds, and only what is beyond them is held against the host. A reference that was not read is empty:
    the asker's own clock takes its place.
    """
    low, high = host["now"] - answered_at, host["now"] - host["asked_at"]
    reference_low, reference_high = 0.0, 0.0
    if reference:
        reference_low = reference["now"] - answered_at
        reference_high = reference["now"] - reference["asked_at"]
    ahead, behind = low - reference_high, reference_low - high
    if max(ahead, behind) <= float(tolerance):
        return ""
    way = "ahead of" if ahead > behind else "behind"
    than = reference_name if reference else "the Ansible controller"
    return (
        f"the clock is {math.ceil(max(ahead, behind))} s {way} that of {than}; keep it within {tolerance} s, "
        "for certificates have times (a time service such as chrony does)"
    )


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        return {"clock_fault": clock_fault}
