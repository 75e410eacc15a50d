# SPDX-License-Identifier: Apache-2.0
"""History is kept for a while, but not without end; old forms are written anew."""

from __future__ import annotations

import asyncio

import pytest
from store_sites import KINDS, StoreSite

from epic.errors import Unavailable
from epic.store import compaction
from epic.store.compaction import CompactionPlan, keep_compacted
from epic.store.object_store import ObjectStore
from epic.store.objects import Key, Put
from epic.store.rewriting import rewrite_old_forms
from epic.store.schema import Schema, StoredKind


def test_what_was_the_newest_long_enough_ago_is_the_oldest_that_is_kept() -> None:
    plan = CompactionPlan(seconds=300, revisions=1000)
    assert plan.next_target(0, 10) is None
    assert plan.next_target(299, 20) is None
    assert plan.next_target(300, 30) == 10
    assert plan.next_target(301, 30) is None
    assert plan.next_target(700, 40) == 30


def test_more_history_than_the_limit_is_forgotten_however_young() -> None:
    plan = CompactionPlan(seconds=300, revisions=1000)
    plan.next_target(0, 10)
    assert plan.next_target(1, 5000) == 4000
    assert plan.next_target(2, 5000) is None
    assert plan.next_target(301, 5001) == 5000


async def test_compaction_goes_on_after_the_store_was_away(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    done = asyncio.Event()

    async def compact(revision: int) -> None:
        asked.append(revision)
        if len(asked) == 1:
            raise Unavailable("away")
        done.set()

    await store.commit(*(Put(Key("Node", "", f"n{i}"), b"1", 0) for i in range(3)))
    monkeypatch.setattr(store, "compact", compact)
    monkeypatch.setattr(compaction, "_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(CompactionPlan, "next_target", lambda *_: 1)
    keeping = asyncio.create_task(keep_compacted(store))
    async with asyncio.timeout(30):
        await done.wait()
    keeping.cancel()


async def test_objects_of_an_older_form_are_written_anew_and_others_left_alone(site: StoreSite) -> None:
    old = await site.open()
    routes = [Key("GWRoute", "shop", f"r{i:03}") for i in range(110)]
    await old.commit(*(Put(key, b'{"a":1}', 0, {"app": "x"}) for key in routes))
    node = Key("Node", "", "n")
    revision = await old.commit(Put(node, b"{}", 0))
    schema = Schema(
        StoredKind(kind, form=2, conversions={1: lambda content: {**content, "b": 2}})
        if kind == "GWRoute"
        else StoredKind(kind)
        for kind in KINDS
    )
    newer = await site.open(schema)
    assert await rewrite_old_forms(newer, schema) == len(routes)
    assert await rewrite_old_forms(newer, schema) == 0
    rewritten = (await newer.list("GWRoute")).items
    assert {(r.body, r.stored_form, tuple(r.labels.items())) for r in rewritten} == {
        (b'{"a":1,"b":2}', 2, (("app", "x"),))
    }
    assert (await newer.get(node)).revision == revision
