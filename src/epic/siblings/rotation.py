# SPDX-License-Identifier: Apache-2.0
"""Rotating the keys of siblings, pure: as those of tunnels are, with all siblings in place of both ends.

A key that one who left may know is replaced at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from epic.model.siblings import SiblingsSpec
from epic.rotation import Policy, Step, key_lifetime
from epic.siblings.listing import advanced, with_secret
from epic.siblings.waiting import Said


def next_step(
    gateway: str, spec: SiblingsSpec, said: Mapping[str, Said], time: datetime, policy: Policy
) -> Step | None:
    """What may be done now: a step waits until all siblings have the newest list."""
    if not spec.siblings or any(said[node].version != spec.version for node in spec.nodes):
        return None
    if len(spec.keys) == 1:
        return Step.BEGIN if _is_due(gateway, spec, time, policy) else None
    if spec.signing_epoch != spec.newest_epoch:
        return Step.SIGN
    # What was signed with the old key may still be under way.
    quiet = min(said[node].held for node in spec.nodes)
    return Step.FINISH if quiet >= policy.grace.total_seconds() else None


def take(spec: SiblingsSpec, step: Step, time: datetime, secret: str) -> SiblingsSpec:
    """The list after the step; `secret` is the new key of `BEGIN`."""
    match step:
        case Step.BEGIN:
            spec = with_secret(spec, secret)
        case Step.SIGN:
            spec = spec.model_copy(update={"signing_epoch": spec.newest_epoch, "signing_since": time})
        case Step.FINISH:
            kept = tuple(key for key in spec.keys if key.epoch == spec.signing_epoch)
            spec = spec.model_copy(update={"keys": kept})
    return advanced(spec, time)


def _is_due(gateway: str, spec: SiblingsSpec, time: datetime, policy: Policy) -> bool:
    if any(former.epoch >= spec.newest_epoch for former in spec.former):
        return True
    # A key that only one has protects nothing.
    lifetime = key_lifetime(gateway, spec.signing_epoch, policy)
    return len(spec.staying) > 1 and time - spec.signing_since >= lifetime
