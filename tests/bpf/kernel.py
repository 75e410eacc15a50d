# SPDX-License-Identifier: Apache-2.0
"""What the running kernel cannot do, so that tests say so instead of failing."""

from __future__ import annotations

import os
import re

import pytest

_RELEASE = os.uname().release
VERSION = tuple(int(number) for number in re.findall(r"\d+", _RELEASE)[:2])

OPENS_OTHER_FAMILY = VERSION >= (6, 3)
"""Whether a filter can take an IPv6 packet out of IPv4, or the reverse (BPF_F_ADJ_ROOM_DECAP_L3_*)."""
NEEDS_OTHER_FAMILY = pytest.mark.skipif(
    not OPENS_OTHER_FAMILY,
    reason=f"Linux {_RELEASE}: IPv6 comes out of IPv4, and IPv4 out of IPv6, since 6.3",
)
RUNS_XDP = pytest.mark.skipif(
    VERSION < (5, 15),
    reason=f"Linux {_RELEASE}: packets are run through XDP with metadata since 5.15",
)
COUNTS_VERIFIED = pytest.mark.skipif(
    VERSION < (5, 16), reason=f"Linux {_RELEASE}: how much the verifier looked at is told since 5.16"
)
TELLS_MTU = pytest.mark.skipif(
    VERSION < (5, 12), reason=f"Linux {_RELEASE}: programs are told how much fits a route since 5.12"
)
