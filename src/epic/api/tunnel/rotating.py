# SPDX-License-Identifier: Apache-2.0
"""Takes stored tunnels through the steps of a key's rotation."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Collection
from datetime import datetime, timedelta

from epic.live import Live, holds
from epic.model.base import now
from epic.model.resources import Tunnel
from epic.rotation import KEY_BYTES, Holds, Policy, Step, begin_limit, next_step, take
from epic.store.interface import Store

EVERY_STEP = frozenset(Step)
# Other writers get their turn between transactions.
_AT_ONCE = 100


def both_ends(live: Live, tunnel: Tunnel) -> list[Holds]:
    """The keys that the EPIC end and the workload end have for sure."""
    return [holds(end) for end in live.ends(tunnel)]


def advance(
    store: Store,
    live: Live,
    policy: Policy,
    steps: Collection[Step] = EVERY_STEP,
    pause: timedelta | None = None,
) -> Counter[Step]:
    """Do what may be done now; returns how often each step was done.

    `pause` is the time between two calls: no more rotations begin in one than keep up a steady rate.
    None: all that are due.
    """
    time = now()
    tunnels = store.list(Tunnel)
    limit = len(tunnels) if pause is None else begin_limit(len(tunnels), pause, policy)
    due = _limited([(t, _due(t, live, time, policy, steps)) for t in tunnels], limit)
    done: Counter[Step] = Counter()
    for start in range(0, len(due), _AT_ONCE):
        with store.transaction() as transaction:
            for seen in due[start : start + _AT_ONCE]:
                tunnel = transaction.find(Tunnel, seen.account, seen.name)
                step = _due(tunnel, live, time, policy, steps) if tunnel is not None else None
                if tunnel is not None and step is not None:
                    spec = take(tunnel.spec, step, time, secrets.token_hex(KEY_BYTES))
                    transaction.update(tunnel.model_copy(update={"spec": spec}))
                    done[step] += 1
    return done


def _limited(found: list[tuple[Tunnel, Step | None]], limit: int) -> list[Tunnel]:
    """Tunnels for which a step is due, but no more than `limit` that begin: those with the oldest keys."""
    under_way = [tunnel for tunnel, step in found if step not in (None, Step.BEGIN)]
    begin = [tunnel for tunnel, step in found if step is Step.BEGIN]
    if len(begin) > limit:
        begin.sort(key=lambda tunnel: tunnel.spec.signing_since)
    return under_way + begin[:limit]


def _due(tunnel: Tunnel, live: Live, time: datetime, policy: Policy, steps: Collection[Step]) -> Step | None:
    if tunnel.deleting:
        return None
    step = next_step(tunnel, both_ends(live, tunnel), time, policy)
    return step if step in steps else None
