# SPDX-License-Identifier: Apache-2.0
"""The engine in etcd 3."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Self

from epic.errors import Compacted, Damaged, EpicError, Invalid, OutcomeUnknown, StorageFull, Unavailable
from epic.proto import etcd_pb2 as pb
from epic.store.engine import Changes, CommitLimits, Committed, Entry, Refused, Scan, Span, Transaction
from epic.store.etcd.connection import Connection, Member
from epic.store.etcd.journal import Journal
from epic.store.etcd.leases import EtcdLease, wait_for_lease
from epic.store.etcd.meta import Meta
from epic.store.etcd.settings import EtcdSettings
from epic.store.etcd.sizes import MOST_OPERATIONS, in_parts, pack, unpack
from epic.store.etcd.watching import watch
from epic.store.objects import LEASE_KIND

_RESTORED_OPERATIONS = 100
_RESTORED_BYTES = 512 * 1024


class EtcdEngine:
    """The keys under one prefix of an etcd cluster. Processes of several hosts may have it open."""

    limits = CommitLimits(operations=10_000, bytes=64 * 1024 * 1024)

    def __init__(self, connection: Connection, settings: EtcdSettings, meta: Meta, revision: int) -> None:
        self._connection = connection
        self._root = f"{settings.prefix}objects/"
        self._meta_key = _meta_key(settings)
        self._meta, self._meta_revision = meta, revision
        self._journal = Journal(settings.prefix, self._txn, self._ask, self._is_mine)

    @classmethod
    async def open(cls, settings: EtcdSettings, *, restoring: bool = False) -> Self:
        """Connect, and make the store if there is none; raises Unavailable and Damaged.

        For `restoring` it may be a store that an earlier restore left half done.
        """
        connection = Connection(settings)
        try:
            await check_cluster(connection)
            meta, revision = await _read_meta(connection, _meta_key(settings))
            if meta.is_restoring and not restoring:
                raise Damaged("etcd: a restore is under way or was not finished; restore the backup again")
            engine = cls(connection, settings, meta, revision)
            if not restoring:
                await engine._journal.resolve()
            return engine
        except BaseException:
            await connection.close()
            raise

    async def revision(self) -> int:
        """The newest durable revision."""
        while True:
            found = await self._ask(pb.TxnRequest(success=[self._journal.look]))
            if not found.responses[0].response_range.kvs:
                return self._from_etcd(found.header.revision)
            await self._journal.resolve()

    async def read(self, path: str) -> Entry | None:
        """What is at the path now."""
        found = await self._range(pb.RangeRequest(key=self._key(path)))
        return self._entry(found.kvs[0]) if found.kvs else None

    async def scan(self, span: Span, limit: int, revision: int | None) -> Scan:
        """At most `limit` entries as they were at `revision` (None: now)."""
        request = pb.RangeRequest(key=self._key(span.start), range_end=self._key(span.end), limit=limit)
        if revision is not None:
            request.revision = self._to_etcd(revision)
        found = await self._range(request)
        entries = [self._entry(pair) for pair in found.kvs]
        return Scan(entries, revision or self._from_etcd(found.header.revision), found.more)

    async def commit(self, transaction: Transaction) -> Committed | Refused:
        """Write durably, all or nothing."""
        return await self._commit(transaction, 0)

    async def changes(self, span: Span, since: int) -> AsyncGenerator[Changes, None]:
        """All changes after revision `since`, for ever."""
        now = await self.revision()
        if since > now:
            raise Invalid(f"revision {since} is not reached yet; the newest is {now}")
        request = pb.WatchCreateRequest(
            key=self._key(span.start), range_end=self._key(span.end), start_revision=self._to_etcd(since + 1)
        )
        async for changes in watch(self._connection, request, self._meta.offset, len(self._root)):
            yield changes

    async def compact(self, revision: int) -> None:
        """Forget what was superseded before `revision`, in the whole etcd."""

        async def ask(member: Member, seconds: float) -> pb.CompactionResponse:
            request = pb.CompactionRequest(revision=self._to_etcd(revision))
            return await member.kv.Compact(request, timeout=seconds)

        with suppress(Compacted):  # to a newer one
            await self._connection.call(ask)

    async def acquire(self, path: str, value: bytes, seconds: float) -> EtcdLease:
        """Wait until nobody holds the path, then hold it."""

        async def put(lease: int) -> int | None:
            outcome = await self._commit(Transaction({path: 0}, puts={path: value}), lease)
            return outcome.revision if isinstance(outcome, Committed) else None

        async def wait_free() -> None:
            revision = await self.revision()
            if await self.read(path) is None:
                return
            async for changes in self.changes(Span(path, path + "\0"), revision):
                if any(change.value is None for change in changes.changes):
                    return

        return await wait_for_lease(self._connection, put, wait_free, seconds)

    async def replace_all(self, entries: Iterable[tuple[str, bytes]], after: int) -> int:
        """Make this the whole content. Who has the store open elsewhere must open it anew to write."""
        offset = self._meta.offset + max(0, after - await self.revision())
        # Until it is done nobody else can write, nor open the store.
        await self._write_meta(Meta(offset, is_restoring=True))
        everything = pb.DeleteRangeRequest(key=self._key(""), range_end=self._root[:-1].encode() + b"0")
        await self._restore([pb.RequestOp(request_delete_range=everything), self._journal.clear])
        for operations in _grouped(entries, self._root):
            await self._restore(operations)
        await self._write_meta(Meta(offset))
        now = await self.revision()
        await self.compact(now)
        return now

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def _commit(self, transaction: Transaction, lease: int) -> Committed | Refused:
        expected = {path: self._expected(revision) for path, revision in transaction.expected.items()}
        operations = {path: self._put(path, value, lease) for path, value in transaction.puts.items()}
        for path in transaction.deletes:
            delete = pb.DeleteRangeRequest(key=self._key(path))
            operations[path] = pb.RequestOp(request_delete_range=delete)
        parts = in_parts(operations)
        if len(parts) > 1 or len(expected) > MOST_OPERATIONS:
            return await self._commit_in_parts(parts, expected)
        request = pb.TxnRequest(
            compare=[self._is_mine(), self._journal.is_free, *self._are_at(expected)],
            success=operations.values(),
            failure=[_look_at(self._meta_key), self._journal.look, *self._look(expected)],
        )
        while True:
            try:
                answer = await self._txn(request)
            except StorageFull as error:
                return Committed(self._from_etcd(await self._find_written(transaction.puts, expected, error)))
            if answer.succeeded:
                return Committed(self._from_etcd(answer.header.revision))
            meta, head, *found = (_revision_of(response) for response in answer.responses)
            if meta != self._meta_revision:
                raise Unavailable("etcd: a backup was or is being restored; start EPIC's control plane anew")
            if not head:
                return self._refused(expected, found)
            await self._journal.resolve()

    async def _find_written(
        self, puts: Mapping[str, bytes], expected: Mapping[str, int], error: StorageFull
    ) -> int:
        """The revision of a commit that was refused for lack of room; raises the error if it was not written.

        etcd carries out the write with which it grows full, and refuses it all the same (`quotaApplierV3`).
        """
        looks = [pb.RequestOp(request_range=pb.RangeRequest(key=self._key(path))) for path in puts]
        try:
            answer = await self._ask(pb.TxnRequest(success=looks))
        except EpicError as lost:
            raise OutcomeUnknown(f"{error.whole}; then {lost}") from error
        pairs = [response.response_range.kvs for response in answer.responses]
        revisions = [_revision_of(response) for response in answer.responses]
        if revisions == [expected.get(path, 0) for path in puts]:
            raise error
        if len(set(revisions)) == 1 and all(
            found and unpack(found[0].value) == value
            for found, value in zip(pairs, puts.values(), strict=True)
        ):
            return revisions[0]
        raise OutcomeUnknown(f"{error.whole}; others have written since") from error

    async def _commit_in_parts(
        self, parts: Sequence[Mapping[str, pb.RequestOp]], expected: Mapping[str, int]
    ) -> Committed | Refused:
        actual: list[int] = []

        async def is_as_expected() -> bool:
            actual.clear()
            paths = list(expected)
            for start in range(0, len(paths), MOST_OPERATIONS):
                looks = self._look(paths[start : start + MOST_OPERATIONS])
                answer = await self._ask(pb.TxnRequest(success=looks))
                actual.extend(_revision_of(response) for response in answer.responses)
            return actual == list(expected.values())

        # While nobody else commits only leases can go.
        leases = {path: at for path, at in expected.items() if path.startswith(f"{LEASE_KIND}/")}
        written = await self._journal.write(
            [list(part.values()) for part in parts], self._are_at(leases), is_as_expected
        )
        if written is None:
            await is_as_expected()
            return self._refused(expected, actual)
        revisions = [self._from_etcd(revision) if revision else 0 for revision in written]
        last = max(revisions) or await self.revision()
        pairs = zip(parts, revisions, strict=True)
        return Committed(last, {path: at or last for part, at in pairs for path in part})

    def _refused(self, expected: Mapping[str, int], found: Sequence[int]) -> Refused:
        actual = zip(expected, found, strict=True)
        return Refused({path: self._from_etcd(revision) if revision else 0 for path, revision in actual})

    def _is_mine(self) -> pb.Compare:
        return _is_at(self._meta_key, self._meta_revision)

    def _are_at(self, expected: Mapping[str, int]) -> list[pb.Compare]:
        return [_is_at(self._key(path), revision) for path, revision in expected.items()]

    def _look(self, paths: Iterable[str]) -> list[pb.RequestOp]:
        return [_look_at(self._key(path)) for path in paths]

    def _put(self, path: str, value: bytes, lease: int) -> pb.RequestOp:
        put = pb.PutRequest(key=self._key(path), value=pack(value), lease=lease)
        return pb.RequestOp(request_put=put)

    async def _range(self, request: pb.RangeRequest) -> pb.RangeResponse:
        async def ask(member: Member, seconds: float) -> pb.RangeResponse:
            return await member.kv.Range(request, timeout=seconds)

        return await self._connection.call(ask)

    async def _txn(self, request: pb.TxnRequest) -> pb.TxnResponse:
        async def ask(member: Member, seconds: float) -> pb.TxnResponse:
            return await member.kv.Txn(request, timeout=seconds)

        return await self._connection.call(ask, writing=True)

    async def _ask(self, request: pb.TxnRequest) -> pb.TxnResponse:
        """Do what writes nothing, at any member that answers."""

        async def ask(member: Member, seconds: float) -> pb.TxnResponse:
            return await member.kv.Txn(request, timeout=seconds)

        return await self._connection.call(ask)

    async def _restore(self, operations: Sequence[pb.RequestOp]) -> None:
        request = pb.TxnRequest(compare=[_is_at(self._meta_key, self._meta_revision)], success=operations)
        if not (await self._txn(request)).succeeded:
            raise Unavailable("etcd: somebody else restores a backup")

    async def _write_meta(self, meta: Meta) -> None:
        put = pb.PutRequest(key=self._meta_key, value=meta.encode())
        await self._restore([pb.RequestOp(request_put=put)])
        self._meta, self._meta_revision = await _read_meta(self._connection, self._meta_key)

    def _entry(self, pair: pb.KeyValue) -> Entry:
        path = pair.key.decode()[len(self._root) :]
        return Entry(path, self._from_etcd(pair.mod_revision), unpack(pair.value))

    def _key(self, path: str) -> bytes:
        return f"{self._root}{path}".encode()

    def _from_etcd(self, revision: int) -> int:
        return revision + self._meta.offset

    def _to_etcd(self, revision: int) -> int:
        if revision <= self._meta.offset:
            raise Compacted("the revision is from before a backup was restored; list again")
        return revision - self._meta.offset

    def _expected(self, revision: int) -> int:
        # A revision from before a restore fits no object, and must not look like etcd's 0 (no object).
        return 0 if revision == 0 else max(revision - self._meta.offset, 0) or -1


def _meta_key(settings: EtcdSettings) -> bytes:
    return f"{settings.prefix}meta".encode()


async def check_cluster(connection: Connection) -> None:
    """Raise Unavailable when no member answers, and Damaged."""

    async def ask(member: Member, seconds: float) -> pb.StatusResponse:
        return await member.maintenance.Status(pb.StatusRequest(), timeout=seconds)

    status = await connection.call(ask)
    if any("CORRUPT" in problem for problem in status.errors):
        raise Damaged(f"etcd: {'; '.join(status.errors)}; restore a backup")


async def _read_meta(connection: Connection, key: bytes) -> tuple[Meta, int]:
    """The store's own key and its revision in etcd; it is made if there is none."""
    request = pb.TxnRequest(
        compare=[_is_at(key, 0)],
        success=[pb.RequestOp(request_put=pb.PutRequest(key=key, value=Meta().encode()))],
        failure=[pb.RequestOp(request_range=pb.RangeRequest(key=key))],
    )

    async def ask(member: Member, seconds: float) -> pb.TxnResponse:
        return await member.kv.Txn(request, timeout=seconds)

    # Not as a write: it may happen twice.
    answer = await connection.call(ask)
    if answer.succeeded:
        return Meta(), answer.header.revision
    pair = answer.responses[0].response_range.kvs[0]
    return Meta.decode(pair.value), pair.mod_revision


def _is_at(key: bytes, revision: int) -> pb.Compare:
    return pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=key, mod_revision=revision)


def _look_at(key: bytes) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, keys_only=True))


def _revision_of(response: pb.ResponseOp) -> int:
    return next((pair.mod_revision for pair in response.response_range.kvs), 0)


def _grouped(entries: Iterable[tuple[str, bytes]], root: str) -> Iterator[list[pb.RequestOp]]:
    group: list[pb.RequestOp] = []
    size = 0
    for path, value in entries:
        if group and (len(group) == _RESTORED_OPERATIONS or size + len(value) > _RESTORED_BYTES):
            yield group
            group, size = [], 0
        put = pb.PutRequest(key=f"{root}{path}".encode(), value=pack(value))
        group.append(pb.RequestOp(request_put=put))
        size += len(value)
    if group:
        yield group
