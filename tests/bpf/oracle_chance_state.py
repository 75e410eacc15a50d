# SPDX-License-Identifier: Apache-2.0
"""Second chance, the second implementation: what a node knows, and whose a packet is by it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from oracle_chance_flows import Flow, Packet

_REACH = 1 << 24


@dataclass(frozen=True)
class Numbers:
    """What a socket goes by."""

    receive: int
    window: int
    unacknowledged: int
    send: int


@dataclass
class Gateway:
    """What a node knows of one gateway."""

    own: int
    order: tuple[int, ...]
    candidates: set[int]
    addresses: dict[int, bytes]
    keys: dict[int, bytes]
    active: int
    has_instance: bool = True
    joined: dict[int, int] = field(default_factory=dict)


@dataclass
class Chance:
    """What a node knows."""

    gateways: dict[bytes, Gateway] = field(default_factory=dict)
    sockets: dict[Flow, Numbers] = field(default_factory=dict)
    owners: dict[Flow, tuple[int, int]] = field(default_factory=dict)
    """By flow an index, and when the sibling of it had joined."""
    counted: Counter[str] = field(default_factory=Counter)


class Match(Enum):
    """Whether a packet is of the socket here of its flow."""

    ABSENT = 0
    STALE = 1
    DOUBTFUL = 2
    FITS = 3


def match(packet: Packet, chance: Chance) -> Match:
    """By the numbers: both must be near the socket's."""
    numbers = chance.sockets.get(packet.flow)
    if numbers is None:
        return Match.ABSENT
    sent = (numbers.send - numbers.unacknowledged) % (1 << 32)
    if packet.error:
        near = {_near(packet.sequence, numbers.unacknowledged, sent)}
    else:
        near = {_near(packet.sequence, numbers.receive, numbers.window)}
        if packet.acknowledged is not None:
            near.add(_near(packet.acknowledged, numbers.unacknowledged, sent))
    if len(near) == 2:
        return Match.DOUBTFUL
    return Match.FITS if near == {True} else Match.STALE


def _near(number: int, first: int, span: int) -> bool:
    return (number - first + _REACH) % (1 << 32) < span + 2 * _REACH


def choose_spare(spare: int, gateway: Gateway, found: Match, others: tuple[int, int | None]) -> int:
    """Who gets what fits nobody; `others` are where it came in, and who is asked next."""
    own = gateway.own
    if found is Match.DOUBTFUL or (spare == own and found is Match.ABSENT and gateway.has_instance):
        return own
    origin, following = others
    return spare if spare != own else origin if following is None else following
