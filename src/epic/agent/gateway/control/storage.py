# SPDX-License-Identifier: Apache-2.0
"""What the control plane sent last, on disk: an agent that starts serves from it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from epic.ads.snapshot import NODE_STATE, TYPES, Resources, Versioned
from epic.agent.gateway.control.resource_cache import ResourceCache
from epic.agent.runtime import store

log = logging.getLogger(__name__)


def load(directory: Path) -> ResourceCache | None:
    """What was written; None when there is nothing that can be read."""
    cache = ResourceCache()
    found = False
    try:
        for type_url, rows in store.read(directory, TYPES):
            found = True
            cache.update(type_url, {r.name: Versioned(r.version, type_url, r.body) for r in rows})
        if cache.refused:
            raise store.Damaged(next(iter(cache.refused.values())))
    except store.Damaged as error:
        path = directory / store.FILE
        log.error("%s: %s; waiting for the control plane to send everything again", path, error)
        store.remove(directory)
        return None
    if not found and not (directory / store.FILE).exists():
        return None
    cache.mark_complete()
    return cache


def rows(type_url: str, updated: Resources, removed: Sequence[str] = ()) -> store.Rows:
    """A change as it is stored; what was said of the node counts for one life of the agent."""
    if type_url == NODE_STATE:
        return {}
    gone: dict[store.Key, store.Row] = {(type_url, name): None for name in removed}
    return gone | {(type_url, n): (r.version, r.value) for n, r in updated.items()}
