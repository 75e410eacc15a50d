# SPDX-License-Identifier: Apache-2.0
"""Objects of the store that cannot be read, on every engine."""

from __future__ import annotations

import json
from contextlib import aclosing

import pytest
from store_sites import SCHEMA, StoreSite
from stored import NODE, A, B, watched

from epic.errors import Damaged
from epic.store.object_store import ObjectStore
from epic.store.objects import CommitConflict, Put, Stored, Unreadable
from epic.store.schema import Schema, StoredKind


async def test_a_damaged_object_is_left_out_and_reported(store: ObjectStore, site: StoreSite) -> None:
    revision = await store.commit(Put(A, b'{"a":1}', 0), Put(B, b'{"b":1}', 0))
    await site.alter(A, lambda value: value.replace(b'"a":1', b'"a":7'))
    page = await store.list("GWRoute")
    assert [stored.key for stored in page.items] == [B]
    assert [unreadable.key for unreadable in page.unreadable] == [A]
    with pytest.raises(Damaged, match=r"GWRoute 'a' of account 'shop' at revision .*checksum"):
        await store.get(A)
    assert store.quarantine.entries() == list(page.unreadable)
    assert page.unreadable[0].revision >= revision


async def test_a_damaged_object_can_be_replaced_and_is_free_then(store: ObjectStore, site: StoreSite) -> None:
    await store.commit(Put(A, b'{"a":1}', 0))
    await site.alter(A, lambda _: b"garbage")
    (unreadable,) = (await store.list("GWRoute")).unreadable
    with pytest.raises(CommitConflict):
        await store.commit(Put(A, b"new", 0))
    await store.commit(Put(A, b"new", unreadable.revision))
    assert (await store.get(A)).body == b"new"
    assert store.quarantine.entries() == []


async def test_a_watch_goes_on_over_what_it_cannot_read(site: StoreSite) -> None:
    newer = await site.open(Schema([StoredKind("GWRoute", form=2)]))
    old = await site.open(SCHEMA)
    start = await old.revision()
    reported: list[Unreadable] = []
    old.quarantine.on_report(reported.append)
    revision = await newer.commit(Put(A, b"{}", 0))
    later = await old.commit(Put(B, b"{}", 0))
    async with aclosing(old.watch("GWRoute", None, start)) as batches:
        first, second = await watched(batches, 2)
    assert first.object == Unreadable(A, revision, reported[0].reason, newer=True)
    assert "written by a newer EPIC (in form 2; this one reads up to 1)" in reported[0].reason
    assert second.object == Stored(B, later, b"{}")
    assert (await newer.get(A)).body == b"{}"


async def test_an_older_form_is_converted_when_it_is_read(site: StoreSite) -> None:
    def rename(content: dict[str, object]) -> dict[str, object]:
        return {"new": content["old"]}

    def nest(content: dict[str, object]) -> dict[str, object]:
        return {"spec": content}

    revision = await (await site.open()).commit(Put(A, b'{"old":1}', 0), Put(B, b'{"odd":1}', 0))
    schema = Schema([StoredKind("GWRoute", form=3, conversions={1: rename, 2: nest})])
    newer = await site.open(schema)
    page = await newer.list("GWRoute")
    assert [(json.loads(stored.body), stored.stored_form) for stored in page.items] == [
        ({"spec": {"new": 1}}, 1)
    ]
    assert [unreadable.reason for unreadable in page.unreadable] == [
        "form 1 cannot be converted to 3: KeyError: 'old'"
    ]
    await newer.commit(Put(A, page.items[0].body, revision))
    assert (await newer.get(A)).stored_form == 3


async def test_a_form_that_is_not_converted_any_more_is_named(site: StoreSite) -> None:
    await (await site.open()).commit(Put(A, b"{}", 0))
    newer = await site.open(Schema([StoredKind("GWRoute", form=3, conversions={2: dict})]))
    with pytest.raises(Damaged, match="its form 1 is too old"):
        await newer.get(A)


async def test_a_kind_of_another_version_is_kept_unread(site: StoreSite) -> None:
    store = await site.open()
    start = await store.revision()
    await store.commit(Put(NODE, b"{}", 0))
    other = await site.open(Schema([StoredKind("GWRoute")]))
    with pytest.raises(Damaged, match="kind Node is not known to this version of EPIC"):
        await other.get(NODE)
    async with aclosing(other.watch(None, None, start)) as batches:
        (event,) = await watched(batches, 1)
    assert isinstance(event.object, Unreadable)
    assert (await store.get(NODE)).body == b"{}"
