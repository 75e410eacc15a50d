# SPDX-License-Identifier: Apache-2.0
"""The store of all objects: get, list, watch, and commits of several objects by compare-and-swap."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from epic.errors import Damaged, Invalid, NotFound, WrittenByNewer
from epic.model.values.labels import LabelSelector
from epic.store.engine import Changes, Committed, Engine, Refused, Span, Transaction
from epic.store.lease import Lease, lease_body
from epic.store.objects import (
    LEASE_KIND,
    Batch,
    CommitConflict,
    Delete,
    Event,
    Key,
    Mismatch,
    Operation,
    Page,
    Put,
    Stored,
    Unreadable,
)
from epic.store.quarantine import Quarantine
from epic.store.schema import Schema

_SCAN = 500
_EVERYTHING = LabelSelector()


class ObjectStore:
    """One store over any engine; to be used from the event loop that the engine was opened in."""

    def __init__(self, engine: Engine, schema: Schema) -> None:
        self._engine = engine
        self._schema = schema
        self.quarantine = Quarantine()

    async def revision(self) -> int:
        """The newest durable revision."""
        return await self._engine.revision()

    async def get(self, key: Key) -> Stored:
        """The object as it is now; raises NotFound, and Damaged when it cannot be read."""
        entry = await self._engine.read(key.check().path)
        if entry is None:
            self.quarantine.release(key)
            raise NotFound(f"{key} does not exist")
        found = self._read(entry.path, entry.revision, entry.value)
        if isinstance(found, Unreadable):
            raise Damaged(str(found))
        return found

    async def list(
        self,
        kind: str,
        account: str | None = None,
        *,
        selector: LabelSelector = _EVERYTHING,
        limit: int = 0,
        continue_token: str = "",
    ) -> Page:
        """The objects of a kind, of one account or (None) of all, ordered by account and name.

        At most `limit` objects (0: all) come at once; all pages show the same revision. Raises Compacted
        when the pages took so long that their revision is forgotten.
        """
        span = span_of(kind, account)
        if limit < 0:
            raise Invalid(f"limit {limit}: expected 0 (everything) or more")
        revision, after = _parse_token(continue_token, span) if continue_token else (None, None)
        items: list[Stored] = []
        unreadable: list[Unreadable] = []
        is_full = at_end = False
        while not (is_full or at_end):
            rest = span if after is None else Span(after + "\0", span.end)
            scan = await self._engine.scan(rest, _scan_size(limit, len(items), selector), revision)
            revision = scan.revision
            for entry in scan.entries:
                after = entry.path
                found = self._read(entry.path, entry.revision, entry.value)
                if isinstance(found, Unreadable):
                    unreadable.append(found)
                elif selector.matches(found.labels):
                    items.append(found)
                    if is_full := len(items) == limit:
                        break
            at_end = not scan.more and (not scan.entries or after == scan.entries[-1].path)
        token = "" if at_end else _make_token(scan.revision, after or "")
        return Page(tuple(items), tuple(unreadable), scan.revision, token)

    async def watch(
        self, kind: str | None, account: str | None, revision: int
    ) -> AsyncGenerator[Batch, None]:
        """All that was committed after `revision`, for ever: of one kind or of all, of one account or of all.

        Now and then comes a batch without events, so that a watcher of little has a new revision to go on
        from. Raises Compacted, Unavailable (watch again from the last batch), and Invalid for a revision
        that is not reached yet.
        """
        async with aclosing(self._engine.changes(span_of(kind, account), revision)) as found:
            async for changes in found:
                yield self._batch(changes, account)

    async def commit(self, *operations: Operation) -> int:
        """Make all writes durable, or none; the revision, which is the one of each object written.

        In etcd a commit of more than a transaction takes is done in parts, each at a revision of its own.
        Raises CommitConflict when an object is not at the revision that its operation expects, and Invalid
        for more operations or bytes than the engine takes. After OutcomeUnknown the writes
        may be there; after StorageFull, Unavailable and Invalid they are not.
        """
        return (await self.carry_out(operations)).revision

    async def carry_out(self, operations: Sequence[Operation]) -> Committed:
        """The same, with the revisions of those objects that were written in parts."""
        return self.conclude(operations, await self._engine.commit(self.prepare(operations)))

    def prepare(self, operations: Sequence[Operation]) -> Transaction:
        """A commit as engines do it; raises Invalid. May be called from any thread."""
        paths = [operation.key.check().path for operation in operations]
        limits = self._engine.limits
        if not 0 < len(operations) <= limits.operations:
            raise Invalid(f"a commit of {len(operations)} objects: expected 1 to {limits.operations}")
        if len(set(paths)) < len(paths):
            raise Invalid("a commit names an object twice; expected one operation for each")
        puts = {
            path: self._schema.encode(operation.key.kind, operation.labels, operation.body)
            for path, operation in zip(paths, operations, strict=True)
            if isinstance(operation, Put)
        }
        size = sum(map(len, puts.values())) + sum(map(len, paths))
        if size > limits.bytes:
            raise Invalid(f"a commit of {size} bytes: expected at most {limits.bytes}")
        expected = {path: operation.expected for path, operation in zip(paths, operations, strict=True)}
        deletes = frozenset(op.key.path for op in operations if isinstance(op, Delete))
        return Transaction(expected, puts, deletes)

    def conclude(self, operations: Sequence[Operation], outcome: Committed | Refused) -> Committed:
        """What has become of a commit; raises CommitConflict. May be called from any thread."""
        if isinstance(outcome, Refused):
            raise CommitConflict(_mismatches(operations, outcome))
        for operation in operations:
            if isinstance(operation, Put | Delete):
                self.quarantine.release(operation.key, outcome.revision)
        return outcome

    async def compact(self, revision: int) -> None:
        """Forget what was superseded before `revision`."""
        await self._engine.compact(revision)

    async def acquire(self, name: str, holder: str, seconds: float) -> Lease:
        """Wait until nobody holds the lease of this name, then hold it; cancel the call to give up.

        When the holder's process or host dies, another one may hold it `seconds` later.
        """
        key = Key(LEASE_KIND, "", name).check()
        value = self._schema.encode(LEASE_KIND, {}, lease_body(holder))
        return Lease(key, await self._engine.acquire(key.path, value, seconds))

    async def close(self) -> None:
        """Give back all resources; the store must not be used afterwards."""
        await self._engine.close()

    def _read(self, path: str, revision: int, value: bytes) -> Stored | Unreadable:
        key = Key.parse(path)
        try:
            envelope = self._schema.decode(key.kind, value)
        except Damaged as error:
            unreadable = Unreadable(key, revision, str(error), value, isinstance(error, WrittenByNewer))
            self.quarantine.report(unreadable)
            return unreadable
        self.quarantine.release(key, revision)
        return Stored(key, revision, envelope.body, envelope.labels, envelope.form)

    def _batch(self, changes: Changes, account: str | None) -> Batch:
        events = []
        for change in changes.changes:
            key = Key.parse(change.path)
            if account is not None and key.account != account:
                continue
            if change.value is None:
                self.quarantine.release(key, change.revision)
                events.append(Event(key, change.revision, None))
            else:
                found = self._read(change.path, change.revision, change.value)
                events.append(Event(key, change.revision, found))
        return Batch(changes.revision, tuple(events))


def span_of(kind: str | None, account: str | None) -> Span:
    """The smallest span with all objects of the kind (None: of every kind) and account (None: of all)."""
    if kind is None:
        return Span("A", "[")  # kinds begin with A to Z
    checked = Key(kind, account or "", "-").check()
    prefix = f"{kind}/" if account is None else f"{kind}/{checked.account}/"
    return Span(prefix, prefix[:-1] + chr(ord("/") + 1))


def _scan_size(limit: int, found: int, selector: LabelSelector) -> int:
    return _SCAN if not limit or selector.requirements else min(_SCAN, limit - found)


def _mismatches(operations: Sequence[Operation], refused: Refused) -> list[Mismatch]:
    found = ((op.key, op.expected, refused.actual.get(op.key.path, op.expected)) for op in operations)
    return [Mismatch(key, expected, actual) for key, expected, actual in found if expected != actual]


def _make_token(revision: int, path: str) -> str:
    return base64.urlsafe_b64encode(f"{revision} {path}".encode()).decode()


def _parse_token(token: str, span: Span) -> tuple[int, str]:
    try:
        revision, path = base64.urlsafe_b64decode(token.encode()).decode().split(" ", 1)
        # A token comes from a client: it must not lead out of the list that was asked for.
        if int(revision) > 0 and path in span:
            return int(revision), path
    except (binascii.Error, ValueError):
        pass
    raise Invalid("continue: this is no token of this list; leave it out and begin again")
