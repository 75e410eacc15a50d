# SPDX-License-Identifier: Apache-2.0
"""Whatever is done in whatever order, every engine does what the plain model does.

`EPIC_STORE_SEQUENCES=100` plays more sequences.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from etcd_server import EtcdServer
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from store_model import StoreModel, Value
from store_sites import KINDS, SCHEMA, EtcdSite, SqliteSite, StoreSite

from epic.errors import Compacted, Damaged, Invalid, NotFound
from epic.model.values.labels import LabelSelector, parse_selector
from epic.store.backup import write_backup
from epic.store.location import restore_backup
from epic.store.objects import CommitConflict, Delete, Event, Key, Operation, Page, Put, Stored, Unchanged
from epic.store.schema import Schema, StoredKind

T = TypeVar("T")

NEWER = Schema(StoredKind(kind, form=2, conversions={1: dict}) for kind in KINDS)
# Accounts whose order by path is not the one of their names.
KEYS = [
    Key(kind, account, name)
    for kind in ("GWRoute", "GWService")
    for account in ("a", "a-b", "a.b")
    for name in ("x", "x1", "é")
] + [Key("Node", "", "n1"), Key("Node", "", "n2")]
KINDS_AND_ACCOUNTS = [("GWRoute", None), ("GWRoute", "a"), ("GWService", "a-b"), ("Node", None), ("Node", "")]
SELECTORS = [LabelSelector(), parse_selector("app=one"), parse_selector("app!=one")]
MARKER = "marker"

keys = st.sampled_from(KEYS)
expectations = st.sampled_from([*["now"] * 14, "none", "older"])
labels = st.sampled_from([{}, {"app": "one"}, {"app": "two"}])
operations = st.lists(
    st.tuples(keys, st.sampled_from(["put", "put", "put", "delete", "unchanged"]), expectations, labels),
    min_size=1,
    max_size=8,
    unique_by=lambda drawn: drawn[0],
)


class StoreMachine(RuleBasedStateMachine):
    """One store; its database outlives reopening, backup and restore."""

    make_site: Callable[[Path], StoreSite]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.site = type(self).make_site(Path(self.directory.name))
        self.pages: list[tuple[str, str | None, LabelSelector, Page]] = []
        self.bodies = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        self.open()
        self.model = StoreModel({self.run(self.store.revision()): {}})

    @rule(drawn=operations, newer=st.booleans())
    def commit(self, drawn: list[tuple[Key, str, str, dict[str, str]]], newer: bool) -> None:
        store = self.newer if newer else self.store
        wanted = [self.operation(*each) for each in drawn]
        mismatches = self.model.mismatches(wanted)
        if mismatches:
            with pytest.raises(CommitConflict) as caught:
                self.run(store.commit(*wanted))
            assert set(caught.value.mismatches) == mismatches
            return
        revision = self.run(store.commit(*wanted))
        if self.model.writes(wanted):
            self.model.commit(wanted, revision, is_readable=not newer)

    @rule(key=keys)
    def get(self, key: Key) -> None:
        value = self.model.state.get(key)
        if value is None:
            with pytest.raises(NotFound):
                self.run(self.store.get(key))
        elif value.is_readable:
            assert self.run(self.store.get(key)) == stored(key, value)
        else:
            with pytest.raises(Damaged):
                self.run(self.store.get(key))

    @rule(
        of=st.sampled_from(KINDS_AND_ACCOUNTS), selector=st.sampled_from(SELECTORS), limit=st.integers(1, 3)
    )
    def list(self, of: tuple[str, str | None], selector: LabelSelector, limit: int) -> None:
        kind, account = of
        page = self.run(self.store.list(kind, account, selector=selector, limit=limit))
        assert page.revision >= self.model.revision
        self.check_page(kind, account, selector, limit, page, None)

    @precondition(lambda self: self.pages)
    @rule(data=st.data(), limit=st.integers(1, 4))
    def list_on(self, data: st.DataObject, limit: int) -> None:
        kind, account, selector, first = data.draw(st.sampled_from(self.pages[-4:]))
        listing = self.store.list(
            kind, account, selector=selector, limit=limit, continue_token=first.continue_token
        )
        if first.revision < self.model.compacted:
            with pytest.raises(Compacted):
                self.run(listing)
            return
        page = self.run(listing)
        assert page.revision == first.revision
        self.check_page(kind, account, selector, limit, page, first.items[-1].key)

    @rule(data=st.data(), of=st.sampled_from([*KINDS_AND_ACCOUNTS, (None, None), (None, "a")]))
    def watch(self, data: st.DataObject, of: tuple[str | None, str | None]) -> None:
        kind, account = of
        since = data.draw(st.sampled_from(sorted(self.model.states)))
        # What comes after the marker does not matter; nothing may be missing before it, or too much.
        marker = Put(Key(kind or "GWRoute", account if account is not None else "a", MARKER), b"1", 0)
        revision = self.run(self.store.commit(marker))
        self.model.commit([marker], revision, is_readable=True)
        expected = self.model.changes(since, kind, account)
        try:
            found = self.run(self.follow(kind, account, since, revision))
        except Compacted:
            assert since + 1 < self.model.compacted
        else:
            assert since + 1 >= self.model.compacted
            assert sorted(map(comparable, found)) == sorted(map(comparable_model, expected))
            assert [event.revision for event in found] == sorted(event.revision for event in found)
        gone = Delete(marker.key, revision)
        self.model.commit([gone], self.run(self.store.commit(gone)), is_readable=True)

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        revision = data.draw(st.sampled_from(sorted(self.model.states)))
        self.run(self.store.compact(revision))
        self.model.compacted = max(self.model.compacted, revision)

    @rule()
    def look_into_the_future(self) -> None:
        with pytest.raises(Invalid):
            self.run(self.follow(None, None, self.model.revision + 100, 0))

    @rule()
    def reopen(self) -> None:
        self.run(self.site.close_all())
        self.open()

    @rule()
    def restore(self) -> None:
        file = Path(self.directory.name) / "backup"
        self.run(write_backup(self.run(self.site.open_engine()), file))
        self.run(self.site.destroy())
        self.run(restore_backup(self.site.location, file))
        before = self.model
        self.open()
        revision = self.run(self.store.revision())
        found = {key: self.renumbered(key, value) for key, value in before.state.items()}
        self.model = StoreModel({revision: found}, compacted=revision)
        assert all(before.revision < value.revision <= revision for value in found.values())

    @invariant()
    def nothing_is_wrong_with_the_whole(self) -> None:
        if hasattr(self, "model"):
            kind, account = KINDS_AND_ACCOUNTS[self.model.revision % len(KINDS_AND_ACCOUNTS)]
            self.list((kind, account), LabelSelector(), 0)
            for entry in self.store.quarantine.entries():
                self.get(entry.key)
            unreadable = {key for key, value in self.model.state.items() if not value.is_readable}
            assert {entry.key for entry in self.store.quarantine.entries()} <= unreadable

    def teardown(self) -> None:
        self.run(self.site.close_all())
        self.runner.close()
        self.directory.cleanup()

    def open(self) -> None:
        self.store = self.run(self.site.open(SCHEMA))
        self.newer = self.run(self.site.open(NEWER))

    def operation(self, key: Key, what: str, expectation: str, labels: dict[str, str]) -> Operation:
        value = self.model.state.get(key)
        now = value.revision if value else 0
        older = [state[key].revision for state in self.model.states.values() if key in state]
        expected = {"now": now, "none": 0, "older": min(older, default=1)}[expectation]
        self.bodies += 1
        if what == "put":
            return Put(key, b'{"n":%d}' % self.bodies, expected, labels)
        return Delete(key, expected) if what == "delete" else Unchanged(key, expected)

    def check_page(
        self,
        kind: str,
        account: str | None,
        selector: LabelSelector,
        limit: int,
        page: Page,
        after: Key | None,
    ) -> None:
        expected = self.model.list(page.revision, kind, account, selector, after)
        shown = expected[:limit] if limit else expected
        assert list(page.items) == [stored(key, value) for key, value in shown]
        assert page.continue_token or len(shown) == len(expected)
        if page.continue_token:
            self.pages.append((kind, account, selector, page))

    async def follow(self, kind: str | None, account: str | None, since: int, to: int) -> list[Event]:
        found: list[Event] = []
        async with aclosing(self.store.watch(kind, account, since)) as batches:
            async for batch in batches:
                found += batch.events
                if batch.revision >= to:
                    break
        return found

    def renumbered(self, key: Key, value: Value) -> Value:
        return replace(value, revision=self.run(self.newer.get(key)).revision)


def stored(key: Key, value: Value) -> Stored:
    return Stored(key, value.revision, value.body, value.labels, 1)


def comparable(event: Event) -> tuple[int, Key, object]:
    return (
        event.revision,
        event.key,
        event.object.body
        if isinstance(event.object, Stored)
        else ("gone" if event.object is None else "unreadable"),
    )


def comparable_model(event: tuple[int, Key, Value | None]) -> tuple[int, Key, object]:
    revision, key, value = event
    return revision, key, "gone" if value is None else value.body if value.is_readable else "unreadable"


def play(make_site: Callable[[Path], StoreSite], share: int) -> None:
    machine = type("Machine", (StoreMachine,), {"make_site": staticmethod(make_site)})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=int(os.environ.get("EPIC_STORE_SEQUENCES", "10")) // share,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        ),
    )


def test_sqlite_does_what_the_model_does() -> None:
    play(lambda directory: SqliteSite(directory / "objects.db"), 1)


def test_etcd_does_what_the_model_does(etcd: EtcdServer) -> None:
    play(lambda _: EtcdSite(etcd.settings(f"/model-{secrets.token_hex(4)}/")), 2)
