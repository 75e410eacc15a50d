# SPDX-License-Identifier: Apache-2.0
"""What second chance did: generated from bpf/chance_counters.h by bpf/generate_names."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Final

CHANCE_COUNTERS: Final[tuple[tuple[str, str], ...]] = (
    ("passed_on", "packets of flows without a known owner passed on to a sibling"),
    ("to_owner", "packets passed straight on to the sibling that is known to have the flow"),
    ("forwarded", "packets of other siblings passed on to the next one"),
    ("taken", "packets passed on by a sibling whose socket is here"),
    ("learned", "flows whose owner was learned"),
    ("returned", "packets that no sibling had a socket for, sent back to where they came in"),
    ("fallbacks", "packets that fit no socket, given to the sibling that answers them best"),
    ("chain_ends", "packets that no sibling had a socket for, left to the instance here"),
    ("over_budget", "packets of unknown flows dropped because there were too many"),
    ("alone", "packets without a socket here, left to it because no other sibling lives"),
    ("stale", "sockets found of which the packet shows that they are another connection's"),
    ("fragments", "fragments of TCP, which say no ports, left to the instance here"),
    ("unreadable", "packets with headers in front of TCP, left to the instance here"),
    ("no_route", "packets dropped because no route leads to the sibling that was to get them"),
)
"""Name and meaning of each; the position is the counter's index."""


@dataclass(frozen=True)
class SecondChanceCounters:
    """Packets of one gateway, GSO packets counted as their segments."""

    hits: int
    """Packets from the router whose socket is here."""
    passed_on: int
    to_owner: int
    forwarded: int
    taken: int
    learned: int
    returned: int
    fallbacks: int
    chain_ends: int
    over_budget: int
    alone: int
    stale: int
    fragments: int
    unreadable: int
    no_route: int

    def __add__(self, other: SecondChanceCounters) -> SecondChanceCounters:
        return SecondChanceCounters(*map(int.__add__, astuple(self), astuple(other)))
