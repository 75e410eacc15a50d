# SPDX-License-Identifier: Apache-2.0
"""The load while something is done to the bed, phase by phase."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from bed import Bed
from loading import Load, Seen
from path_network import Address
from silence import Silences
from steering import Site
from waits import Waits

CONNECTIONS, INTERVAL, SHORT = 400, 0.4, 20.0
SECONDS = float(os.environ.get("EPIC_CHURN_SECONDS", "5"))
"""How long something is changed again and again."""
LONG = 60.0
SETTLED = 1.5
"""Seconds in which every connection has carried some requests."""


def load_of(site: Site, public: Address, waits: Waits) -> Load:
    """That of these tests."""
    tell = Silences(site.bed).tell
    return Load(site.bed.client, public, CONNECTIONS, INTERVAL, SHORT, tell, waits.between)


def under_load(site: Site, public: Address, *phases: Callable[[Bed], object]) -> list[Seen]:
    """What the load saw in each of them."""
    with Waits(site.serving.processes) as waits, load_of(site, public, waits) as load:
        for phase in phases:
            load.phase(phase.__name__)
            phase(site.bed)
            time.sleep(SETTLED)
        load.end()
    seen = [load.seen(phase.__name__) for phase in phases]
    for phase, each in zip(phases, seen, strict=True):
        print(f"{phase.__name__}: {each.text}")
    return seen


def none_slow(seen: Seen) -> bool:
    """What shares the machine with a short run may hold requests up; a long one wants it for itself."""
    return SECONDS < LONG or seen.slow == 0
