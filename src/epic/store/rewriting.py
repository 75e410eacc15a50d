# SPDX-License-Identifier: Apache-2.0
"""Writing objects anew that are stored in an older form, so that its conversion can be dropped one day."""

from __future__ import annotations

from epic.store.object_store import ObjectStore
from epic.store.objects import CommitConflict, Put
from epic.store.schema import Schema

_AT_ONCE = 100


async def rewrite_old_forms(store: ObjectStore, schema: Schema) -> int:
    """Write each object of an older form in its kind's newest; how many. What somebody changes meanwhile
    is in the newest form by that.
    """
    rewritten = 0
    for kind in schema.kinds:
        token = ""
        while True:
            page = await store.list(kind, limit=_AT_ONCE, continue_token=token)
            for stored in page.items:
                if schema.is_newest(kind, stored.stored_form):
                    continue
                try:
                    await store.commit(Put(stored.key, stored.body, stored.revision, stored.labels))
                except CommitConflict:
                    continue
                rewritten += 1
            token = page.continue_token
            if not token:
                break
    return rewritten
