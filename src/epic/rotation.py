# SPDX-License-Identifier: Apache-2.0
"""Rotating a tunnel's keys without losing a packet, pure: the next step, and the tunnel after it.

A new key goes to both ends; when both have it, it signs; when both sign with it and packets under way have
arrived, the old key goes. At every moment each end has the key that the other signs with, however late the
ends hear of a step.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from pydantic import SecretStr

from epic.model.resources import Tunnel, TunnelSpec
from epic.model.values.keys import EpochKey

KEY_BYTES = 16

_JITTER = 0.2
"""By so much of the period a key may live shorter: tunnels of one age shall not stay together."""
_CATCHING_UP = 2
"""So many times the steady rate rotations may begin when more are due, as after an outage."""


class Step(Enum):
    """What can be done to a tunnel's keys."""

    BEGIN = "give a new key to both ends"
    SIGN = "let the new key sign"
    FINISH = "remove the old key"


@dataclass(frozen=True)
class Holds:
    """What one end has said of its keys."""

    epochs: frozenset[int]
    signing: int
    signing_for: timedelta = timedelta(0)
    """How long it is known to sign with that."""


NOTHING = Holds(frozenset(), 0)
"""What an end holds that has not been heard of."""


@dataclass(frozen=True)
class Policy:
    """When to rotate, and how long an old key still verifies what was signed with it.

    A captured tag is worth something as long as its key verifies.
    """

    period: timedelta = timedelta(minutes=10)
    """No key signs longer, where both ends report and there are no arrears."""
    grace: timedelta = timedelta(seconds=30)


def lifetime(tunnel: Tunnel, policy: Policy) -> timedelta:
    """How long the tunnel's present key signs."""
    return key_lifetime(tunnel.name, tunnel.spec.signing_epoch, policy)


def key_lifetime(owner: str, epoch: int, policy: Policy) -> timedelta:
    """How long a key signs: another part of the period for each owner and epoch."""
    chance = zlib.crc32(f"{owner} {epoch}".encode()) / (1 << 32)
    return policy.period * (1 - _JITTER * chance)


def begin_limit(tunnels: int, pause: timedelta, policy: Policy) -> int:
    """How many of so many tunnels may begin a rotation in a time of `pause`."""
    if not policy.period:
        return tunnels
    return math.ceil(_CATCHING_UP * tunnels * (pause / policy.period))


def is_rotating(spec: TunnelSpec) -> bool:
    """Whether there is a second key."""
    return len(spec.keys) > 1


def next_step(tunnel: Tunnel, ends: Collection[Holds], now: datetime, policy: Policy) -> Step | None:
    """What may be done now; `ends` are both ends of the tunnel."""
    if waits_for(tunnel.spec, ends):
        return None
    if not is_rotating(tunnel.spec):
        due = now - tunnel.spec.signing_since >= lifetime(tunnel, policy)
        return Step.BEGIN if due else None
    if tunnel.spec.signing_epoch != _newest(tunnel.spec):
        return Step.SIGN
    # Counted from when both ends signed with the new key: packets of the old one may still be under way.
    quiet = min((end.signing_for for end in ends), default=timedelta(0))
    return Step.FINISH if quiet >= policy.grace else None


def waits_for(spec: TunnelSpec, ends: Collection[Holds]) -> list[bool]:
    """For each end whether the next step waits for it to do what is asked; empty when for none."""
    newest = _newest(spec)
    if spec.signing_epoch == newest:
        waiting = [newest not in end.epochs or end.signing != newest for end in ends]
    else:
        waiting = [newest not in end.epochs for end in ends]
    return waiting if any(waiting) else []


def take(spec: TunnelSpec, step: Step, now: datetime, secret: str = "") -> TunnelSpec:
    """The tunnel after the step; `secret` is the new key of `BEGIN`."""
    match step:
        case Step.BEGIN:
            new = EpochKey(epoch=_newest(spec) + 1, secret=SecretStr(secret))
            return spec.model_copy(update={"keys": (*spec.keys, new)})
        case Step.SIGN:
            return spec.model_copy(update={"signing_epoch": _newest(spec), "signing_since": now})
        case Step.FINISH:
            kept = tuple(key for key in spec.keys if key.epoch == spec.signing_epoch)
            return spec.model_copy(update={"keys": kept})


def _newest(spec: TunnelSpec) -> int:
    return max((key.epoch for key in spec.keys), default=0)
