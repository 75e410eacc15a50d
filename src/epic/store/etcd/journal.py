# SPDX-License-Identifier: Apache-2.0
"""Commits that are more than one transaction of etcd's: written down as a whole, then carried out in parts.

While a journal is begun nobody else commits. Whoever finds one whose parts are all written down carries it
out to its end, be its writer dead or alive; one that is not complete is dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from epic.errors import EpicError, OutcomeUnknown, StorageFull, Unavailable
from epic.proto import etcd_pb2 as pb

_PREPARING = b"preparing"
_COMPLETE = b"complete"
_DEAD_SECONDS = 5.0
"""How long the writer of a journal that is not complete may take before it is taken for dead."""
_LOOK_SECONDS = 0.02
_WAIT_SECONDS = 20.0

Txn = Callable[[pb.TxnRequest], Awaitable[pb.TxnResponse]]
Part = Sequence[pb.RequestOp]
Check = Callable[[], Awaitable[bool]]


class Journal:
    """The journal of one store.

    `txn` is etcd's, `ask` the same for what writes nothing; `mine` compares what the store must be to write.
    """

    def __init__(self, prefix: str, txn: Txn, ask: Txn, mine: Callable[[], pb.Compare]) -> None:
        self._head = f"{prefix}journal/head".encode()
        self._parts = f"{prefix}journal/part/".encode()
        self._all = (f"{prefix}journal/".encode(), f"{prefix}journal0".encode())
        self._txn = txn
        self._ask = ask
        self._mine = mine
        self._seen: tuple[int, float] = (0, 0.0)

    @property
    def is_free(self) -> pb.Compare:
        """Holds when there is no journal."""
        return _at(self._head, 0)

    @property
    def look(self) -> pb.RequestOp:
        """Looks whether there is one."""
        return _range(self._head)

    @property
    def clear(self) -> pb.RequestOp:
        """Removes whatever there is of one."""
        start, end = self._all
        return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=start, range_end=end))

    async def write(
        self, parts: Sequence[Part], fence: Sequence[pb.Compare], is_as_expected: Check
    ) -> list[int] | None:
        """Carry out all parts, or nothing, if all is as expected and the fence holds; None: it is not.

        Returns the revision of each part; 0 of one that somebody else carried out.
        """
        begun = await self._begin()
        try:
            for number, part in enumerate(parts):
                content = pb.TxnRequest(success=part).SerializeToString()
                begun = await self._go_on(
                    begun, [_put(self._part(number), content), _put(self._head, _PREPARING)]
                )
            complete = None
            if await is_as_expected():
                # From here on it has happened, whatever becomes of this process.
                complete = await self._if_at(begun, [_put(self._head, _COMPLETE)], fence)
            if complete is None:
                await self._drop(begun)
                return None
        except BaseException as error:
            dropped = False
            with suppress(EpicError):
                dropped = await self._drop(begun)
                if not dropped:
                    await self.resolve()
            if isinstance(error, StorageFull) and not dropped:
                # etcd carries out the write with which it grows full: it may have been the one that counts.
                raise OutcomeUnknown(f"{error.whole}; whether the commit was stored is not known") from error
            raise
        try:
            return await self._carry_out(complete, len(parts))
        except EpicError as error:
            with suppress(EpicError):
                await self.resolve()
                return [0] * len(parts)
            raise OutcomeUnknown(f"{error}; the commit is written down, and will be carried out") from error

    async def resolve(self) -> None:
        """Bring a journal that is there to its end; returns when others may commit. Raises Unavailable."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            head = await self._find(self._head)
            if head is None:
                return
            if head.value == _COMPLETE:
                await self._carry_out(head.mod_revision, 0)
                return
            if head.mod_revision != self._seen[0]:
                self._seen = (head.mod_revision, time.monotonic())
            elif time.monotonic() - self._seen[1] > _DEAD_SECONDS:
                await self._drop(head.mod_revision)
                continue
            if time.monotonic() > deadline:
                raise Unavailable("etcd: somebody else is in the middle of a large commit")
            await asyncio.sleep(_LOOK_SECONDS)

    async def _begin(self) -> int:
        while True:
            compares = [self._mine(), self.is_free]
            answer = await self._txn(pb.TxnRequest(compare=compares, success=[_put(self._head, _PREPARING)]))
            if answer.succeeded:
                return answer.header.revision
            if await self._find(self._head) is None:
                raise Unavailable("etcd: a backup was or is being restored; start EPIC's control plane anew")
            await self.resolve()

    async def _carry_out(self, complete: int, count: int) -> list[int]:
        """Carry out what is left of the journal whose head is at revision `complete`."""
        revisions = [0] * count
        while True:
            request = pb.RangeRequest(key=self._parts, range_end=self._parts[:-1] + b"0", limit=1)
            found = await self._ask(pb.TxnRequest(success=[pb.RequestOp(request_range=request)]))
            pairs = found.responses[0].response_range.kvs
            if not pairs:
                break
            part = pb.TxnRequest.FromString(pairs[0].value)
            part.compare.extend([_at(self._head, complete), _at(pairs[0].key, pairs[0].mod_revision)])
            part.success.append(pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=pairs[0].key)))
            answer = await self._txn(part)
            number = int(pairs[0].key[len(self._parts) :])
            if answer.succeeded:
                if number < count:
                    revisions[number] = answer.header.revision
                continue
            # Somebody else has carried it out, or all of them: what is there then is another journal.
            head = await self._find(self._head)
            if head is None or head.mod_revision != complete:
                return revisions
        await self._txn(pb.TxnRequest(compare=[_at(self._head, complete)], success=[self.clear]))
        return revisions

    async def _drop(self, begun: int) -> bool:
        return await self._if_at(begun, [self.clear]) is not None

    async def _go_on(self, begun: int, operations: Sequence[pb.RequestOp]) -> int:
        revision = await self._if_at(begun, operations)
        if revision is None:
            raise Unavailable("etcd: the commit took too long and was dropped by somebody else")
        return revision

    async def _if_at(
        self, begun: int, operations: Sequence[pb.RequestOp], compares: Sequence[pb.Compare] = ()
    ) -> int | None:
        """The revision of these operations; None: they were not done, for the head is at another one."""
        request = pb.TxnRequest(compare=[self._mine(), _at(self._head, begun), *compares], success=operations)
        answer = await self._txn(request)
        return answer.header.revision if answer.succeeded else None

    async def _find(self, key: bytes) -> pb.KeyValue | None:
        found = await self._ask(pb.TxnRequest(success=[_range(key)]))
        return next(iter(found.responses[0].response_range.kvs), None)

    def _part(self, number: int) -> bytes:
        return self._parts + f"{number:08}".encode()


def _at(key: bytes, revision: int) -> pb.Compare:
    return pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=key, mod_revision=revision)


def _put(key: bytes, value: bytes) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value))


def _range(key: bytes) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key))
